import { backoff, nearly, progress, spend, type Tries } from "./backoff.js";
import type { Beginning } from "./beginning.js";
import { type Ask, type Call, pathOf } from "./call.js";
import { Broken, clientError, SluiceError } from "./errors.js";
import { once } from "./insist.js";
import { admit, type Seen } from "./seen.js";
import { isOffline } from "./surroundings.js";
import { decode, type Message } from "./transport/events.js";
import { begin, type Page, poll, WAIT_S } from "./transport/poll.js";
import { PROBE_MS_MIN, type Probing, probe } from "./transport/probe.js";
import { type Connection, connect } from "./transport/stream.js";
import type { AnswerEvent, Closed, LogEvent, PollingReason, State, Summary } from "./types.js";
import { judge } from "./verdict.js";
import { waiting } from "./waiting.js";

/** Streams that fail so often without progress are polled for once. */
const FAILURES_MAX = 2;
/** A connection that brought bytes after this long works, even if the stream says nothing. */
const WORKS_MS = 10_000;
/** While a stream is paused, and while the browser says that it is offline. */
const PARKED_MS = 15_000;
const OFFLINE_MS = 30_000;
/** Between two polls, where the first brought nothing; and in any case. */
const POLL_MS_MIN = 250;
const POLL_MS_MAX = 30_000;

/**
 * Reads one stream from where it was seen to its end, over as many connections as that takes: one
 * that streams, or polls with a stream tried beside them.
 */
export class Follower {
  state: State = { is: "connecting" };
  readonly #call: Call;
  readonly #seen: Seen;
  readonly #beginning: Beginning | undefined;
  readonly #tell: (event: AnswerEvent) => void;
  #attempt = new AbortController();
  #connection: Connection | undefined;
  /** A stream that came through while the answer was polled. */
  #found: Connection | undefined;
  #polling: PollingReason | undefined;
  #probing: Probing = { everyMs: PROBE_MS_MIN };
  /** Where the polls are: it may be behind what they show, at records that show nothing. */
  #cursor = -1;
  #tries: Tries = { attempts: 0, spentMs: 0, progressAt: 0 };
  #left = false;
  #forgone = false;
  readonly #waiting = waiting();

  constructor(
    call: Call,
    seen: Seen,
    beginning: Beginning | undefined,
    tell: (event: AnswerEvent) => void,
  ) {
    this.#call = call;
    this.#seen = seen;
    this.#beginning = beginning;
    this.#tell = tell;
  }

  get transport(): "streaming" | "polling" {
    return this.#polling ? "polling" : "streaming";
  }

  /**
   * Follow to the end. Returns undefined where it was left, or forgone before it began. Throws
   * `SluiceError` where it is given up; called again, it goes on.
   */
  async run(): Promise<Closed | undefined> {
    progress(this.#tries);
    if (this.state.is === "given-up") this.#enter({ is: "connecting" });
    try {
      while (!this.#over()) {
        const began = Date.now();
        const error = await this.#try();
        if (!this.#over()) await this.#recover(error, began);
      }
    } catch (error) {
      if (error instanceof SluiceError) this.#enter({ is: "given-up", error });
      throw error;
    } finally {
      this.#drop();
    }
    const { closed } = this.#seen;
    if (!this.#left) this.#enter(closed ? closedState(closed) : NEVER_BEGAN);
    return closed;
  }

  /** One attempt; returns why it ended. */
  async #try(): Promise<unknown> {
    const attempt = new AbortController();
    this.#attempt = attempt;
    try {
      await (this.#polling ? this.#poll(this.#polling) : this.#stream());
      return undefined;
    } catch (error) {
      return error;
    } finally {
      attempt.abort(new Broken("interrupted", "over"));
    }
  }

  /** Let go of a stream that came through when it was no longer wanted. */
  #drop(): void {
    this.#found?.end(new Broken("interrupted", "too late"));
    this.#found = undefined;
  }

  #over(): boolean {
    const neverBegan = this.#forgone && !this.#seen.id && !this.#beginning?.uncertain;
    return this.#seen.closed !== undefined || this.#left || neverBegan;
  }

  // What is done to it from outside.

  leave(): void {
    this.#left = true;
    this.#interrupt("left");
    this.#waiting.wake();
  }

  /** Begin nothing any more. What has begun is not ended by this. */
  forgo(): void {
    this.#forgone = true;
    this.#waiting.wake();
  }

  /** Go on at once where it waits, or would wait next. */
  hurry(): void {
    this.#waiting.hurry();
  }

  cut(): void {
    this.#attempt.abort(new Broken("lost", "cut"));
    this.#look();
  }

  usePolling(force: boolean): void {
    if (force === (this.#polling === "forced")) return;
    this.#pollFor(force ? "forced" : undefined);
    this.#waiting.wake();
  }

  online(): void {
    progress(this.#tries);
    if (this.#polling === "refused") this.#pollFor(undefined);
    this.#look();
  }

  /** The tab is shown: it may have slept, with its timers and its connection. */
  shown(): void {
    this.#look();
  }

  /** The connection is most likely gone; but this machine may itself be what is called. */
  offline(): void {
    this.#interrupt("offline");
    this.#look();
  }

  #look(): void {
    this.#connection?.look();
    if (this.state.is !== "limited") this.#waiting.wake();
  }

  #pollFor(why: PollingReason | undefined): void {
    this.#polling = why;
    this.#interrupt("another transport");
  }

  #interrupt(why: string): void {
    this.#attempt.abort(new Broken("interrupted", why));
  }

  // Streaming.

  async #stream(): Promise<void> {
    const { signal } = this.#attempt;
    const connection = this.#found ?? (await this.#connect(signal));
    this.#found = undefined;
    if (!connection) return this.#end(signal);
    this.#connection = connection;
    signal.addEventListener("abort", () => connection.end(signal.reason), { once: true });
    try {
      await this.#read(connection);
    } finally {
      this.#connection = undefined;
    }
  }

  async #connect(signal: AbortSignal): Promise<Connection | undefined> {
    if (this.#seen.id) return connect(this.#call, this.#follow(this.#seen.id), signal);
    const connection = await this.#start.send((ask) => connect(this.#call, ask, signal));
    if (connection?.stream) this.#seen.id = connection.stream;
    return connection;
  }

  /**
   * From one before what is needed: so an event comes at once even where the stream is silent, and
   * a connection that is held back is told from one that has nothing to say.
   */
  #follow(stream: string): Ask {
    const after = Math.max(this.#seen.after - 1, -1);
    return { path: pathOf(stream, `/events?after=${after}`) };
  }

  async #read(connection: Connection): Promise<void> {
    const began = Date.now();
    for await (const messages of connection.reads) {
      for (const message of messages) this.#take(message, connection);
      if (this.#seen.closed) return connection.end(new Broken("interrupted", "closed"));
      if (Date.now() - began > WORKS_MS) progress(this.#tries);
    }
    throw new Broken("lost", "the connection ended");
  }

  #take(message: Message, connection: Connection): void {
    if (message.event === "reconnect") {
      throw new Broken("told", "the server let go", { afterMs: connection.retryMs });
    }
    const event = decode(message);
    if (!event) return;
    if (this.#admit(event)) this.#probing.everyMs = PROBE_MS_MIN;
    if (this.#seen.closed) return;
    const { paused } = this.#seen;
    this.#enter(paused ? { is: "paused", reason: paused } : { is: "live" });
  }

  /** There is nothing after what was seen: how it ended is in the summary. */
  async #end(signal: AbortSignal): Promise<void> {
    const ask = { path: pathOf(this.#seen.id ?? "") };
    const read = (response: Response): Promise<Summary> => response.json();
    const summary = await once(this.#call, ask, read, signal);
    const { status, finish_reason, usage, error } = summary;
    if (status === "open" || status === "paused" || !finish_reason) {
      throw new Broken("lost", "nothing came");
    }
    const seq = summary.last_seq ?? this.#seen.after;
    this.#admit({ type: "closed", seq, status, finish_reason, usage, error });
  }

  // Polling.

  async #poll(why: PollingReason): Promise<void> {
    const { signal } = this.#attempt;
    this.#drop();
    this.#seen.id ??= await this.#start.send((ask) => begin(this.#call, ask, signal));
    const { id } = this.#seen;
    if (why !== "forced") void this.#probe(id, signal);
    this.#cursor = Math.max(this.#cursor, this.#seen.after);
    let waitS = 0; // at first what is there already
    while (!signal.aborted) {
      const page = await poll(this.#call, id, { after: this.#cursor, waitS }, signal);
      const news = page.next > this.#cursor;
      this.#takePage(page, why);
      if (this.#seen.closed) return;
      const afterMs = Math.min(Math.max(page.pollAfterMs, news ? 0 : POLL_MS_MIN), POLL_MS_MAX);
      await this.#waiting.for(page.paused ? PARKED_MS : nearly(afterMs));
      waitS = page.paused ? 0 : WAIT_S; // to wait for what is paused would be billed
    }
    throw signal.reason;
  }

  #takePage(page: Page, why: PollingReason): void {
    progress(this.#tries);
    for (const event of page.events) this.#admit(event);
    this.#cursor = Math.max(this.#cursor, page.next);
    if (this.#seen.closed) return;
    this.#seen.paused = page.paused;
    this.#enter(page.paused ? { is: "paused", reason: page.paused } : { is: "polling", why });
  }

  /** Beside the polls of an attempt: a stream that comes through takes over. */
  async #probe(stream: string, signal: AbortSignal): Promise<void> {
    const open = (own: AbortSignal) => connect(this.#call, this.#follow(stream), own);
    const found = await probe(open, this.#probing, signal);
    if (!found) return;
    this.#found = found;
    this.#pollFor(undefined);
    this.#waiting.wake();
  }

  // What both share.

  get #start(): Beginning {
    if (!this.#beginning) throw clientError("unknown-stream", "There is no stream to follow.");
    return this.#beginning;
  }

  #admit(event: LogEvent): boolean {
    if (!admit(this.#seen, event)) return false;
    progress(this.#tries);
    this.#tell(event);
    return true;
  }

  #enter(state: State): void {
    if (JSON.stringify(state) === JSON.stringify(this.state)) return;
    this.state = state;
    this.#tell({ type: "state", state });
  }

  /** After an attempt that did not end with the stream: wait, as long as is right, or give up. */
  async #recover(error: unknown, began: number): Promise<void> {
    const verdict = judge(error, !this.#polling);
    switch (verdict.do) {
      case "give up":
        throw verdict.error;
      case "again":
        return;
      case "follow":
        this.#seen.id = verdict.stream;
        return;
      case "poll":
        this.#polling = verdict.why;
        return this.#spend(began, 0, error);
      case "wait":
        this.#enter({
          is: "limited",
          problem: verdict.problem,
          until: Date.now() + verdict.afterMs,
        });
        if (verdict.problem.status === 503) this.#spend(began, verdict.afterMs, error);
        return this.#waiting.for(nearly(verdict.afterMs));
      case "come back":
        if (!this.#seen.paused) return this.#retry("let go", began, error, nearly(verdict.afterMs));
        progress(this.#tries);
        return this.#waiting.for(nearly(verdict.afterMs));
      case "back off":
        return this.#retry(verdict.why, began, error);
    }
  }

  async #retry(why: string, began: number, error: unknown, toldMs?: number): Promise<void> {
    if (isOffline()) {
      this.#enter({ is: "offline" });
      return this.#waiting.for(OFFLINE_MS);
    }
    const attempt = ++this.#tries.attempts;
    const delayMs = toldMs ?? backoff(attempt);
    this.#spend(began, delayMs, error);
    // Where streams fail again and again maybe polls do not; and where these fail it is no worse.
    if (this.#polling !== "forced" && attempt >= FAILURES_MAX) {
      this.#polling = this.#polling ? undefined : "refused";
    }
    this.#enter({ is: "reconnecting", attempt, at: Math.round(Date.now() + delayMs), why });
    return this.#waiting.for(delayMs);
  }

  /** Count an attempt that began then, and its wait. Throws when there is nothing left to spend. */
  #spend(began: number, delayMs: number, cause: unknown): void {
    if (!spend(this.#tries, began, delayMs)) return;
    const detail = "There was no connection for two minutes. The text so far is kept.";
    throw clientError("unreachable", detail, cause);
  }
}

const NEVER_BEGAN: State = {
  is: "closed",
  status: "cancelled",
  finishReason: "cancelled",
  error: null,
};

function closedState({ status, finish_reason: finishReason, error }: Closed): State {
  return { is: "closed", status, finishReason, error };
}
