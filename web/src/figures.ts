import type { AnswerEvent } from "sluice-client";

/** What a token is, roughly, in characters; the true count comes with the end of an answer. */
const CHARS_A_TOKEN = 4;
/** What has come within less is what was stored up, and has no rate. */
const RATED_MS = 500;
const GAPS_SHOWN = 60;
/** More are not kept: an answer may take hours, and the middle of them is asked for again and again. */
const GAPS_KEPT = 1000;

const bytes = new TextEncoder();

/** The figures of one answer as this page received it. Times are in ms of one clock. */
export class Figures {
  chunks = 0;
  bytes = 0;
  epoch: number | undefined;
  reconnects = 0;
  seq = -1;
  /** The newest times between chunks, the last one last. */
  readonly gaps: number[] = [];
  /** Of what came behind the first chunk. */
  #chars = 0;
  #first: number | undefined;
  #last: number | undefined;

  constructor(readonly began: number) {}

  note(event: AnswerEvent, now: number): void {
    if ("seq" in event) this.seq = event.seq;
    if (event.type === "epoch") this.epoch = event.epoch;
    if (event.type === "opened") this.epoch ??= 1;
    if (event.type === "state" && event.state.is === "reconnecting") this.reconnects += 1;
    if (event.type === "chunk") this.#chunk(event.text, now);
  }

  #chunk(text: string, now: number): void {
    this.chunks += 1;
    this.bytes += bytes.encode(text).length;
    if (this.#last !== undefined) {
      if (this.gaps.push(now - this.#last) > GAPS_KEPT) this.gaps.shift();
      this.#chars += text.length;
    }
    this.#first ??= now;
    this.#last = now;
  }

  /** From the question to the first text, in ms. */
  get firstTokenMs(): number | undefined {
    return this.#first === undefined ? undefined : this.#first - this.began;
  }

  /** Tokens a second since the first text, as an estimate. */
  get tokensPerSecond(): number | undefined {
    if (this.#first === undefined || this.#last === undefined) return undefined;
    if (this.#last - this.#first < RATED_MS) return undefined;
    return (this.#chars / CHARS_A_TOKEN / (this.#last - this.#first)) * 1000;
  }

  /** For how long no text has come, in ms. */
  silentMs(now: number): number {
    return now - (this.#last ?? this.began);
  }

  get shown(): readonly number[] {
    return this.gaps.slice(-GAPS_SHOWN);
  }
}

/** The middle of the values. */
export function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle];
  if (high === undefined || sorted.length % 2) return high;
  return ((sorted[middle - 1] ?? high) + high) / 2;
}

/** The variance of the values, with all of them as the population. */
export function variance(values: readonly number[]): number | undefined {
  if (!values.length) return;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
}
