import type { Broken } from "./errors.js";

/** A timer that fires this much late was asleep, with its tab or its machine. */
const LATE_MS = 3000;

/** Watches over one request: aborts it when nothing was heard of it for too long. */
export interface Guard {
  signal: AbortSignal;
  /** What the promise gives, unless the request ends before: not every `fetch` heeds its signal. */
  within<T>(promise: Promise<T>): Promise<T>;
  /** There was a sign of life; from now on `limitMs` counts where it is given. */
  heard(limitMs?: number): void;
  /** Look at once, by the clock: a timer sleeps with its machine. */
  look(): void;
  /** The request is over: nothing more is watched, and its connection is let go. */
  end(reason?: Broken): void;
}

/**
 * A guard over a request that also ends with `outer`. `silence` makes the reason, and is told whether
 * the tab may have slept meanwhile: then the silence says nothing of the connection.
 */
export function guard(
  outer: AbortSignal,
  limitMs: number,
  silence: (slept: boolean) => Broken,
): Guard {
  const own = new AbortController();
  let heardAt = Date.now();
  let timer: ReturnType<typeof setTimeout>;

  function look(): void {
    clearTimeout(timer);
    if (own.signal.aborted) return;
    const idleMs = Date.now() - heardAt;
    if (idleMs >= limitMs) end(silence(idleMs > limitMs + LATE_MS));
    // A clock that was set back makes it no longer.
    else timer = setTimeout(look, Math.min(limitMs - idleMs, limitMs));
  }

  function end(reason?: unknown): void {
    clearTimeout(timer);
    own.abort(reason);
  }

  outer.addEventListener("abort", () => end(outer.reason), { signal: own.signal });
  if (outer.aborted) end(outer.reason);
  look();
  return {
    signal: own.signal,
    within(promise) {
      return new Promise((resolve, reject) => {
        const stop = () => reject(own.signal.reason);
        const settled = () => own.signal.removeEventListener("abort", stop);
        own.signal.addEventListener("abort", stop);
        promise.then(resolve, reject).finally(settled);
        if (own.signal.aborted) stop();
      });
    },
    heard(ms = limitMs) {
      heardAt = Date.now();
      if (ms === limitMs) return; // the timer finds out when it fires
      limitMs = ms;
      look();
    },
    look,
    end,
  };
}
