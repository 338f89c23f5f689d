/** Resolves after so long, or when the signal says so. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

/** Waits that can be cut short. */
export interface Waiting {
  /** Resolves after so long; at once where there is a hurry, which is over then. */
  for(ms: number): Promise<void>;
  /** End the wait, where there is one. */
  wake(): void;
  /** End the wait, or else the next one. */
  hurry(): void;
}

export function waiting(): Waiting {
  let current: AbortController | undefined;
  let hurried = false;
  return {
    async for(ms) {
      current = new AbortController();
      if (!hurried) await sleep(ms, current.signal);
      current = undefined;
      hurried = false;
    },
    wake: () => current?.abort(),
    hurry() {
      hurried = true;
      current?.abort();
    },
  };
}
