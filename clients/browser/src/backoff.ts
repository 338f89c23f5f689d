/** When another try is worth it. Times are in ms. */

const BASE_MS = 1000;
const CAP_MS = 15_000;
/** For how long an answer is tried without any progress, online and awake. */
export const BUDGET_MS = 120_000;
/** A try and its wait count as no longer than this: whoever took longer was asleep. */
const TRY_MS_MAX = 30_000;
/** Later than this timers do not overflow. */
const WAIT_MS_MAX = 2 ** 31 - 1;

/** Full jitter: between at once and a bound that doubles with each attempt, from 1 on. */
export function backoff(attempt: number, random = Math.random): number {
  return random() * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(attempt - 1, 10));
}

/** No earlier than told, and up to a tenth later, so that not all who were told come at once. */
export function nearly(ms: number, random = Math.random): number {
  return Math.min(ms + random() * Math.min(ms / 10, 5000), WAIT_MS_MAX);
}

/** What has been tried since there was progress. */
export interface Tries {
  attempts: number;
  spentMs: number;
  progressAt: number;
}

/** Count a try that began then, and the wait behind it; whether the budget is spent. */
export function spend(tries: Tries, began: number, delayMs: number, now = Date.now()): boolean {
  const tookMs = now - Math.max(began, tries.progressAt);
  tries.spentMs += Math.min(Math.max(tookMs, 0), TRY_MS_MAX) + Math.min(delayMs, TRY_MS_MAX);
  return tries.spentMs > BUDGET_MS;
}

export function progress(tries: Tries, now = Date.now()): void {
  tries.attempts = tries.spentMs = 0;
  tries.progressAt = now;
}
