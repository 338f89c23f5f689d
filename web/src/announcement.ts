import type { AnswerEvent, State } from "sluice-client";
import { describe } from "./describe";
import { several, words } from "./wording";

/** What to say of this event of an answer whose state was another before; most are not worth a word. */
export function announcement(
  event: AnswerEvent,
  before: State["is"] | undefined,
  text: string,
): string | undefined {
  if (event.type === "chunk") return text === event.text ? "Answer started" : undefined;
  if (event.type !== "state" || event.state.is === before) return;
  const state = event.state;
  switch (state.is) {
    case "reconnecting":
      return "Connection lost, reconnecting";
    case "offline":
      return "Offline. The answer goes on when the network is back";
    case "live":
      return before === "connecting" ? undefined : "The answer goes on";
    case "connecting":
      return;
    case "closed":
      if (state.status === "completed") return `Answer complete, ${several(words(text), "word")}`;
  }
  const { text: said, detail } = describe(state, Date.now());
  return detail ? `${said}. ${detail}` : said;
}
