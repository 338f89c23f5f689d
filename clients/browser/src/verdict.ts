import { Broken, isOurs, SluiceError } from "./errors.js";
import type { PollingReason, Problem } from "./types.js";

/** What to do about a connection that ended too early, or never came about. */
export type Verdict =
  | { do: "again" }
  /** After a while, by backoff. */
  | { do: "back off"; why: string }
  /** When the server says: it has let go of the connection, for its own reasons. */
  | { do: "come back"; afterMs: number }
  /** When the server says: there was too much, or it cannot answer now. */
  | { do: "wait"; afterMs: number; problem: Problem }
  | { do: "poll"; why: PollingReason }
  /** A repeated start whose stream runs: follow that. */
  | { do: "follow"; stream: string }
  | { do: "give up"; error: SluiceError };

/** A gateway that says 0, or a date of a clock that is behind, is not asked again and again. */
const WAIT_MS_MIN = 1000;
/** Refusals that the same request may outlive. */
const PASSING = [408, 425, 429];

export function judge(error: unknown, streaming: boolean): Verdict {
  if (error instanceof SluiceError) return judgeRefusal(error, streaming);
  if (!(error instanceof Broken)) return { do: "back off", why: String(error) };
  switch (error.how) {
    case "interrupted":
      return { do: "again" };
    case "told":
      return { do: "come back", afterMs: error.afterMs };
    case "lost":
      return { do: "back off", why: error.message };
    default:
      return { do: "poll", why: error.how };
  }
}

function judgeRefusal(error: SluiceError, streaming: boolean): Verdict {
  const { problem, status, retryAfterMs } = error;
  if (status === 409 && typeof problem.stream === "string") {
    return { do: "follow", stream: problem.stream };
  }
  if ((status === 429 || status === 503) && retryAfterMs !== undefined) {
    return { do: "wait", afterMs: Math.max(retryAfterMs, WAIT_MS_MIN), problem };
  }
  // Not the server's own words: something on the way refuses streams, and maybe only those.
  if (streaming && !isOurs(error) && !PASSING.includes(status))
    return { do: "poll", why: "refused" };
  const final =
    status < 500 ? !PASSING.includes(status) : problem.retryable === false && status !== 500;
  return final ? { do: "give up", error } : { do: "back off", why: error.message };
}
