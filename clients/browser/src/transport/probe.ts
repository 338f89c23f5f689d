import { nearly } from "../backoff.js";
import { Broken } from "../errors.js";
import { sleep } from "../waiting.js";
import type { Connection } from "./stream.js";

/** Between two tries; it doubles, until a stream brought something. */
export const PROBE_MS_MIN = 5000;
const PROBE_MS_MAX = 300_000;

export interface Probing {
  everyMs: number;
}

/**
 * Try to stream now and then, until one comes through; undefined where the signal was first. Only
 * the tries end with the signal: what came through outlives the polls beside which it was tried.
 */
export async function probe(
  open: (signal: AbortSignal) => Promise<Connection | undefined>,
  probing: Probing,
  signal: AbortSignal,
): Promise<Connection | undefined> {
  while (true) {
    await sleep(nearly(probing.everyMs), signal);
    if (signal.aborted) return undefined;
    probing.everyMs = Math.min(probing.everyMs * 2, PROBE_MS_MAX);
    const trying = new AbortController();
    const stop = () => trying.abort(signal.reason);
    signal.addEventListener("abort", stop);
    const found = await open(trying.signal).catch(() => undefined);
    signal.removeEventListener("abort", stop);
    if (found && !signal.aborted) return found;
    found?.end(new Broken("interrupted", "too late"));
  }
}
