import type { SluiceError, State } from "sluice-client";
import { reached } from "./quota";
import { clock, secondsUntil } from "./wording";

export type Tone = "live" | "waiting" | "paused" | "done" | "stopped" | "failed";
export type Remedy = "retry" | "resume" | "regenerate" | "key";

export interface Description {
  tone: Tone;
  text: string;
  /** What it means, or what to do. */
  detail?: string;
  remedy?: Remedy;
}

const POLLING = {
  buffered: "something on the way holds the stream back",
  forced: "as you asked",
  refused: "streaming was refused",
} as const;

const PAUSED: Record<string, Omit<Description, "tone">> = {
  requested: { text: "Paused", detail: "The text so far is kept.", remedy: "resume" },
  quota: {
    text: "Paused",
    detail: "The budget is used up. Continue when there is more.",
    remedy: "resume",
  },
  expired: { text: "Paused", detail: "Your key has expired.", remedy: "key" },
  revoked: { text: "Paused", detail: "Your key was revoked.", remedy: "key" },
  suspended: { text: "Paused", detail: "Your account is suspended. Ask who runs it." },
};

const FINISHED: Record<string, Description> = {
  stop: { tone: "done", text: "Complete" },
  length: { tone: "done", text: "Complete", detail: "The answer came to its longest length." },
  quota: {
    tone: "failed",
    text: "Ended",
    detail: "The budget is used up. The text so far is kept.",
  },
  policy: { tone: "failed", text: "Ended by a rule", detail: "The text so far is kept." },
};

/** From which silence on it is told, in ms: a reader wonders by then. */
const SILENCE_TOLD = 5000;

/** Waits of up to this many ms are counted in seconds. */
const COUNTED_MS = 90_000;

/**
 * How an answer stands, in words for people.
 *
 * @param now in ms, as the state's times
 * @param silentMs for how long there was no new text
 */
export function describe(state: State, now: number, silentMs = 0): Description {
  switch (state.is) {
    case "connecting":
      return { tone: "waiting", text: "Connecting" };
    case "live":
      return { tone: "live", text: "Live", ...silence(silentMs) };
    case "polling":
      return {
        tone: "live",
        text: "Polling",
        detail: `${sentence(POLLING[state.why])}. Nothing is lost.`,
      };
    case "reconnecting":
      return {
        tone: "waiting",
        text: state.at > now ? `Reconnecting in ${secondsUntil(state.at, now)} s` : "Reconnecting",
        detail: "The connection was lost. The text so far is kept.",
        ...(state.at - now > 2000 ? { remedy: "retry" } : {}),
      };
    case "offline":
      return {
        tone: "waiting",
        text: "Offline",
        detail: "It goes on by itself when the network is back.",
      };
    case "paused":
      return { tone: "paused", ...(PAUSED[state.reason] ?? { text: "Paused", remedy: "resume" }) };
    case "limited":
      return limited(state, now);
    case "closed":
      return closed(state);
    case "given-up":
      return givenUp(state.error);
  }
}

/** Counted down while that is watched, else a time of day, with the day where it is another. */
function wait(until: number, now: number): string {
  if (until - now <= COUNTED_MS) return `for ${secondsUntil(until, now)} s`;
  return `until ${clock(until, now)}`;
}

function limited({ problem, until }: Extract<State, { is: "limited" }>, now: number): Description {
  const { policy, limit, detail = "There was too much." } = problem;
  const known = typeof policy === "string" && typeof limit === "number";
  return {
    tone: "waiting",
    text: `${problem.status === 503 ? "Waiting" : "Limited"} ${wait(until, now)}`,
    detail: `${known ? reached(policy, limit) : detail} It goes on by itself.`,
    // Until then someone may have raised it.
    ...(until - now > COUNTED_MS ? { remedy: "retry" } : {}),
  };
}

function silence(ms: number): Partial<Description> {
  if (ms < SILENCE_TOLD) return {};
  const detail = "Should its producer be gone, another goes on within some 20 s.";
  return { text: `Nothing new for ${Math.round(ms / 1000)} s`, detail };
}

function closed(state: Extract<State, { is: "closed" }>): Description {
  if (state.status === "cancelled") {
    return { tone: "stopped", text: "Stopped", detail: "The text so far is kept." };
  }
  const known = FINISHED[state.finishReason];
  if (known && state.status === "completed") return known;
  const why = state.error?.detail ?? state.error?.title ?? known?.detail ?? "The answer broke off.";
  return {
    tone: "failed",
    text: known?.text ?? "Failed",
    detail: `${why} ${why === known?.detail ? "" : "The text so far is kept."}`.trim(),
    ...(state.error?.retryable === false ? {} : { remedy: "regenerate" }),
  };
}

function givenUp({ problem, status, message }: SluiceError): Description {
  if (status === 401) {
    return {
      tone: "failed",
      text: "Signed out",
      detail: "Your key is not valid any more.",
      remedy: "key",
    };
  }
  const answered = status < 500 ? "Refused" : "Failed";
  const text = status ? answered : "Not connected";
  return { tone: "failed", text, detail: problem.detail ?? message, remedy: "retry" };
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
