import { describe, type Tone } from "./describe";
import type { Turn } from "./turn";

const SIGNS: Record<Tone, string> = {
  live: "● ",
  waiting: "○ ",
  paused: "‖ ",
  done: "",
  stopped: "",
  failed: "! ",
};

/** The document's title: what is open, and by one sign how it stands. */
export function documentTitle(turn: Turn | undefined, name: string): string {
  if (!turn) return "Sluice";
  return `${SIGNS[describe(turn.answer.state, Date.now()).tone]}${name} · Sluice`;
}
