import type { AnswerEvent } from "./types.js";

/**
 * What waits for a consumer that is slower than its answer. It stays small: chunks that follow each
 * other are merged, and of states only the newest waits, behind all else. The rest comes a few times.
 */
export function enqueue(waiting: AnswerEvent[], event: AnswerEvent): void {
  const state = waiting.at(-1)?.type === "state" ? waiting.pop() : undefined;
  const last = waiting.at(-1);
  if (event.type === "chunk" && last?.type === "chunk") {
    waiting[waiting.length - 1] = { ...event, text: last.text + event.text };
  } else {
    waiting.push(event);
  }
  if (state && event.type !== "state") waiting.push(state);
}

export interface Source {
  /** What has happened so far, as a few events. */
  before(): AnswerEvent[];
  on(listener: (event: AnswerEvent) => void): () => void;
  /** Settles when nothing more comes; rejects where that is an error. */
  ended(): Promise<unknown>;
}

/** Iterate over a source from its beginning, at the consumer's pace. */
export async function* iterate(source: Source): AsyncGenerator<AnswerEvent> {
  const waiting = source.before();
  let wake: (() => void) | undefined;
  let over = false;
  let failure: { error: unknown } | undefined;
  const stop = source.on((event) => {
    enqueue(waiting, event);
    wake?.();
  });
  source
    .ended()
    .catch((error: unknown) => {
      failure = { error };
    })
    .finally(() => {
      over = true;
      wake?.();
    });
  try {
    while (true) {
      for (let event = waiting.shift(); event; event = waiting.shift()) yield event;
      if (over) break;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    if (failure) throw failure.error;
  } finally {
    stop();
  }
}
