/** The surface of the client: what is asked, what is told, and how an answer stands. */

import type { SluiceError } from "./errors.js";

/**
 * A key or token. A function is asked once, and anew when the server says that what it gave has
 * ended or is about to: so it should return a fresh one, not one that it keeps.
 */
export type Credential = string | (() => string | Promise<string>);

export interface Options {
  credential: Credential;
  /** Where streams are served. Default: where this page comes from. */
  url?: string;
  /** Where all else is served, in a deployment without an edge. Default: `url`. */
  api?: string;
  /** Send each body's SHA-256 along, as a closed CloudFront origin needs it. */
  bodyHash?: boolean;
  /** Another `fetch`, for tests and for pages that wrap theirs. */
  fetch?: typeof fetch;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** The body of `POST /v1/streams`. */
export interface StartRequest {
  model: string;
  messages: Message[];
  max_tokens?: number;
  pacing?: {
    flush_interval_ms?: number | [number, number];
    warm_up_ms?: number;
    boundary?: "natural" | "none";
  };
  backpressure?: "buffer" | "throttle";
  metadata?: Record<string, string>;
  /** A stream to go on from: its conversation and text come before `messages`. */
  parent?: string;
}

export interface FollowOptions {
  /** What was seen already: the newest seq, and the text up to it. */
  after?: number;
  text?: string;
  /** What the stream was asked, where that is known: `regenerate` and `refine` need it. */
  request?: StartRequest;
}

/** All of an answer that outlives a page, as plain JSON. It holds no credential. */
export interface Saved {
  stream?: string;
  after: number;
  text: string;
  request?: StartRequest;
  idempotencyKey?: string;
}

/** RFC 9457 problem details. `type` is stable; those of the client itself are `urn:sluice:client:…`. */
export interface Problem {
  type: string;
  title?: string;
  status?: number;
  detail?: string;
  /** Whether the same request may succeed later. */
  retryable?: boolean;
  [extension: string]: unknown;
}

export interface TokenUsage {
  input_tokens: number;
  output_tokens: number;
  /** Whether they were counted by their characters. */
  estimated: boolean;
}

export type ClosedStatus = "completed" | "cancelled" | "failed";
export type FinishReason = "stop" | "length" | "cancelled" | "quota" | "policy" | "error";
export type PauseReason = "requested" | "quota" | "expired" | "revoked" | "suspended";

/** The end of a stream. */
export interface Closed {
  status: ClosedStatus;
  finish_reason: FinishReason;
  usage: TokenUsage | null;
  error: Problem | null;
}

/**
 * What the log says, each once and in order. Who polls is told of `chunk` and `closed` only. `at` is
 * in ms since 1970, `expires_at` in s.
 */
export type LogEvent =
  | { type: "opened"; seq: number; id: string; model: string; at: number }
  | { type: "chunk"; seq: number; text: string }
  | { type: "epoch"; seq: number; epoch: number; continuation?: "prefill" | "prompt" | "replay" }
  | { type: "expiring"; seq: number; expires_at: number }
  | { type: "paused"; seq: number; reason: PauseReason }
  | { type: "granted"; seq: number; expires_at: number | null }
  | ({ type: "closed"; seq: number } & Closed);

export type AnswerEvent = LogEvent | { type: "state"; state: State };

/**
 * Why an answer is polled: its stream is held back on the way (`buffered`), something on the way
 * does not let it through (`refused`), or `usePolling` said so.
 */
export type PollingReason = "buffered" | "refused" | "forced";

/** How an answer stands. Times are in ms since 1970. All but the last two go on by themselves. */
export type State =
  | { is: "connecting" }
  | { is: "live" }
  | { is: "polling"; why: PollingReason }
  /** The connection was lost; `at` says when it is tried again, `why` is for people. */
  | { is: "reconnecting"; attempt: number; at: number; why: string }
  /** The browser says so. */
  | { is: "offline" }
  /** Nothing more is produced until a `resume()`, or, where a credential ended, a `grant()`. */
  | { is: "paused"; reason: PauseReason }
  /** Too much was asked, or the server cannot answer now: it said when to come again. */
  | { is: "limited"; problem: Problem; until: number }
  | { is: "closed"; status: ClosedStatus; finishReason: FinishReason; error: Problem | null }
  /** It is not tried any more. The text is kept, and `retry()` goes on. */
  | { is: "given-up"; error: SluiceError };

/**
 * One answer, followed by itself from the moment that it is made. Iterating it gives what has
 * happened before as one `chunk` and one `state`, then each event; chunks that a slow consumer has
 * not taken are merged, and of states it gets the newest. The iteration ends when the stream is
 * closed or left, and throws when the answer is given up.
 */
export interface Answer extends AsyncIterable<AnswerEvent> {
  /** The stream's id, once known. */
  readonly id: string | undefined;
  /** All chunks so far, joined. */
  readonly text: string;
  /** The newest seq seen; −1 before the first. */
  readonly after: number;
  readonly state: State;
  readonly transport: "streaming" | "polling";
  /** Rejects with a `SluiceError` where the answer is given up or left; after `retry` it is anew. */
  readonly done: Promise<Closed>;
  /** Have every event from now on. Returns what ends that. */
  on(listener: (event: AnswerEvent) => void): () => void;
  /** End it; its text is kept. What has not begun yet never does. Tried for as long as it is followed. */
  cancel(): Promise<void>;
  /** Have nothing more produced until `resume`. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Let it go on by a fresh credential. This happens by itself where the credential is a function. */
  grant(): Promise<void>;
  /** Ask the same once more, in a new stream; this one is cancelled if it still runs. */
  regenerate(): Answer;
  /** Go on from this one with a further message, in a new stream; this one is cancelled likewise. */
  refine(message: string): Answer;
  /** Go on after it was given up, or at once where it waits. */
  retry(): void;
  /** Stop following. The stream goes on, and `saved()` finds it again. */
  leave(): void;
  saved(): Saved;
  /** Poll, whether or not anything holds streams back; or stream again. */
  usePolling(force: boolean): void;
  /** Drop the connection, as a network would. It is taken up again. */
  cut(): void;
}

/** A stream as the server lists it; times are in ms since 1970. */
export interface Summary {
  id: string;
  status: "open" | "paused" | ClosedStatus;
  model: string;
  created_at: number;
  closed_at: number | null;
  finish_reason: FinishReason | null;
  usage: TokenUsage | null;
  error: Problem | null;
  metadata: Record<string, string>;
  parent: string | null;
  last_seq: number | null;
  events_url: string;
  chunks_url: string;
}

/** The newest first; `next_page` is the next `page`. */
export interface StreamPage {
  streams: Summary[];
  next_page: string | null;
}

/** What is left of each limit, and the tenant's tokens by day and month, in UTC. */
export interface Usage {
  limits: {
    policy: string;
    limit: number;
    left: number;
    window_s: number | null;
    reset_s: number | null;
  }[];
  tokens: Record<string, number>;
}
