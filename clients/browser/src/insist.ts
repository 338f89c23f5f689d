import { backoff, nearly } from "./backoff.js";
import { type Ask, broken, type Call } from "./call.js";
import { Broken, clientError, SluiceError } from "./errors.js";
import { guard } from "./guard.js";

const TRIES_MAX = 3;
const ANSWER_MS = 30_000;
/** Whoever asked waits for this: what takes longer is told instead. */
const WAIT_MS_MAX = 5000;

/**
 * Send a request that changes nothing when it is sent twice, a few times where it must be; with
 * `until`, again and again until that is aborted. Returns what `read` makes of the response. Throws
 * `SluiceError`.
 */
export async function insist<T>(
  call: Call,
  ask: Ask,
  read: (response: Response) => Promise<T>,
  until: AbortSignal = AbortSignal.abort(),
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(call, ask, read, new AbortController().signal);
    } catch (error) {
      const waitMs = waitBefore(error, attempt, until.aborted ? WAIT_MS_MAX : Infinity);
      if (waitMs === undefined || (until.aborted && attempt >= TRIES_MAX)) {
        if (error instanceof SluiceError) throw error;
        throw clientError("unreachable", "There was no answer.", error);
      }
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
}

/** What `read` makes of the one answer. Throws as `Call` does, and `Broken` where none comes in time. */
export async function once<T>(
  call: Call,
  ask: Ask,
  read: (response: Response) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const silence = () => new Broken("lost", "no answer in time");
  const watch = guard(signal, ANSWER_MS, silence);
  try {
    return await watch.within(call(ask, watch.signal).then(read));
  } catch (error) {
    throw broken(error, watch.signal);
  } finally {
    watch.end();
  }
}

/** In ms; undefined where another try is no use. */
function waitBefore(error: unknown, attempt: number, mostMs: number): number | undefined {
  if (!(error instanceof SluiceError)) return backoff(attempt);
  const { retryAfterMs, status } = error;
  if (retryAfterMs !== undefined) {
    if (retryAfterMs > mostMs) return undefined;
    // A gateway that says 0 is not asked again and again.
    return Math.max(nearly(retryAfterMs), backoff(attempt));
  }
  return status >= 500 && error.problem.retryable !== false ? backoff(attempt) : undefined;
}
