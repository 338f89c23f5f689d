import type { Closed, LogEvent, PauseReason } from "./types.js";

/** What was seen of a stream: all that its follower needs to go on, over any connection. */
export interface Seen {
  id?: string;
  model?: string;
  /** The newest seq; −1 before the first. */
  after: number;
  text: string;
  paused?: PauseReason | undefined;
  closed?: Closed;
}

/**
 * Take an event in; whether it is new. This is the one place that tells new from known, so it does
 * not matter which connection brings an event, or how often.
 */
export function admit(seen: Seen, event: LogEvent): boolean {
  if (event.type === "closed") {
    if (seen.closed) return false;
    const { status, finish_reason, usage, error } = event;
    seen.closed = { status, finish_reason, usage, error };
    seen.after = Math.max(seen.after, event.seq);
    return true;
  }
  // Known, but maybe from before a reload, which kept no more than its number.
  if (event.seq === seen.after && event.type === "paused") seen.paused = event.reason;
  if (event.seq <= seen.after) return false;
  seen.after = event.seq;
  if (event.type === "chunk") seen.text += event.text;
  if (event.type === "opened") {
    seen.id = event.id;
    seen.model = event.model;
  }
  if (event.type === "paused") seen.paused = event.reason;
  else if (event.type !== "expiring") seen.paused = undefined;
  return true;
}
