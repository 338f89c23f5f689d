import { Beginning } from "./beginning.js";
import { type Call, pathOf } from "./call.js";
import type { Credentials } from "./credentials.js";
import { clientError, SluiceError } from "./errors.js";
import { Follower } from "./follower.js";
import { insist } from "./insist.js";
import { iterate } from "./queue.js";
import type { Seen } from "./seen.js";
import { watchSurroundings } from "./surroundings.js";
import type { Answer, AnswerEvent, Closed, Message, Saved, StartRequest, State } from "./types.js";

export interface Context {
  call: Call;
  credentials: Credentials;
  start(request: StartRequest): Answer;
}

type Listener = (event: AnswerEvent) => void;

/** The `Answer` that is handed out: a follower, with what a page wants to know of it and do to it. */
export class FollowedAnswer implements Answer {
  readonly #context: Context;
  readonly #seen: Seen;
  readonly #beginning: Beginning | undefined;
  readonly #request: StartRequest | undefined;
  readonly #follower: Follower;
  readonly #listeners = new Set<Listener>();
  #done: Promise<Closed>;
  /** Aborted when it is not followed any more. */
  #following = new AbortController();
  /** The credential that the stream goes by, or one before it. */
  #shown: string | undefined;
  #left = false;

  constructor(context: Context, saved: Saved) {
    const { stream, after, text, request, idempotencyKey } = saved;
    this.#context = context;
    this.#seen = { after, text, ...(stream === undefined ? {} : { id: stream }) };
    this.#request = request;
    this.#beginning =
      request && idempotencyKey ? new Beginning(request, idempotencyKey) : undefined;
    this.#follower = new Follower(context.call, this.#seen, this.#beginning, (event) =>
      this.#tell(event),
    );
    context.credentials.show().then(
      (credential) => {
        this.#shown = credential;
      },
      () => {}, // whoever asks by it is told
    );
    // From the next turn on, so that whoever asked for the answer can listen first.
    this.#done = heeded(Promise.resolve().then(() => this.#run()));
  }

  get id(): string | undefined {
    return this.#seen.id;
  }
  get text(): string {
    return this.#seen.text;
  }
  get after(): number {
    return this.#seen.after;
  }
  get state(): State {
    return this.#follower.state;
  }
  get transport(): "streaming" | "polling" {
    return this.#follower.transport;
  }
  get done(): Promise<Closed> {
    return this.#done;
  }

  on(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  [Symbol.asyncIterator](): AsyncIterator<AnswerEvent> {
    return iterate({
      before: () => {
        const { after: seq, text } = this.#seen;
        const chunk: AnswerEvent[] = text ? [{ type: "chunk", seq, text }] : [];
        return [...chunk, { type: "state", state: this.state }];
      },
      on: (listener) => this.on(listener),
      ended: () => this.#done.catch((error: unknown) => this.#unlessLeft(error)),
    });
  }

  async cancel(): Promise<void> {
    const uncertain = () => !this.id && this.#beginning?.uncertain;
    this.#follower.forgo();
    // It may have begun, and would run on: by its key it is found.
    if (this.state.is === "given-up" && uncertain()) this.retry();
    const id = this.id ?? (await this.#known());
    if (id) await this.#steer(id, "cancel", this.#following.signal);
    else if (this.state.is === "given-up" && uncertain()) throw this.state.error;
  }

  async pause(): Promise<void> {
    await this.#steer(await this.#needed(), "pause");
  }

  async resume(): Promise<void> {
    await this.#steer(await this.#needed(), "resume");
  }

  async grant(): Promise<void> {
    const id = await this.#needed();
    const { credentials } = this.#context;
    await credentials.renew(await credentials.show());
    await this.#steer(id, "grant");
  }

  regenerate(): Answer {
    const asked = this.#request?.messages ?? [];
    const question = asked.findLast(({ role }) => role === "user");
    if (!question) throw unknownQuestion();
    return this.#next([question], asked);
  }

  refine(message: string): Answer {
    const further = { role: "user" as const, content: message };
    return this.#next([further], [...(this.#request?.messages ?? []), further]);
  }

  /** A new stream: `behind` this one; or, where that has not begun, of a conversation `instead`. */
  #next(behind: Message[], instead: Message[]): Answer {
    const model = this.#request?.model ?? this.#seen.model;
    if (!model) throw unknownQuestion();
    const request = { ...this.#request, model };
    if (this.id) return this.#context.start({ ...request, messages: behind, parent: this.id });
    this.cancel().catch(() => {}); // it may begin yet; who asks anew wants one answer
    return this.#context.start({ ...request, messages: instead });
  }

  retry(): void {
    const { state } = this;
    if (state.is !== "given-up") {
      this.#follower.hurry();
      return;
    }
    if (!this.id) this.#beginning?.renew();
    this.#done = heeded(this.#run());
  }

  leave(): void {
    this.#left = true;
    this.#follower.leave();
  }

  saved(): Saved {
    const { id, after, text } = this.#seen;
    return {
      ...(id === undefined ? {} : { stream: id }),
      after,
      text,
      ...(this.#request && { request: this.#request }),
      ...(this.#beginning && { idempotencyKey: this.#beginning.idempotencyKey }),
    };
  }

  usePolling(force: boolean): void {
    this.#follower.usePolling(force);
  }

  cut(): void {
    this.#follower.cut();
  }

  async #run(): Promise<Closed> {
    const follower = this.#follower;
    this.#following = new AbortController();
    const stop = watchSurroundings({
      online: () => follower.online(),
      offline: () => follower.offline(),
      shown: () => follower.shown(),
    });
    try {
      const closed = await follower.run();
      if (this.#left && !closed) throw clientError("left", "The answer is not followed any more.");
      return closed ?? NEVER_BEGAN;
    } finally {
      stop();
      this.#following.abort();
    }
  }

  #tell(event: AnswerEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // it is the page's own, and must not stop the answer
        });
      }
    }
    this.#keepPermitted(event);
  }

  /** Show a fresh credential ahead of the end of the one before, or behind it. Once for each. */
  #keepPermitted(event: AnswerEvent): void {
    const ended =
      event.type === "state" &&
      event.state.is === "paused" &&
      ["expired", "revoked"].includes(event.state.reason);
    const id = this.id;
    if (!id || !(ended || event.type === "expiring")) return;
    this.#renew(id, ended).catch(() => {}); // it is paused, and says so
  }

  async #renew(id: string, ended: boolean): Promise<void> {
    const { credentials } = this.#context;
    const held = await credentials.show();
    // A poll that was refused for the one that has ended has brought another already.
    const untried = ended && held !== this.#shown;
    const fresh = untried ? held : await credentials.renew(held);
    if (fresh === held && !untried) return;
    await this.#steer(id, "grant", this.#following.signal);
    this.#shown = fresh;
  }

  /** Tried a few times; or, where nobody else would try it again, for as long as the answer is. */
  async #steer(
    id: string,
    control: "cancel" | "pause" | "resume" | "grant",
    following?: AbortSignal,
  ): Promise<void> {
    const ask = { method: "POST" as const, path: pathOf(id, `/${control}`) };
    await insist(this.#context.call, ask, (response) => response.json(), following);
    if (control !== "pause") this.#follower.hurry(); // who waits for it need not wait on
  }

  /** The id, once it is known; undefined where the answer ends before. */
  #known(): Promise<string | undefined> {
    return new Promise((resolve) => {
      const stop = this.on(() => this.id && settle());
      const settle = () => {
        stop();
        resolve(this.id);
      };
      this.#done.then(settle, settle);
    });
  }

  async #needed(): Promise<string> {
    const id = this.id ?? (await this.#known());
    if (id) return id;
    if (this.state.is === "given-up") throw this.state.error;
    throw clientError("unknown-stream", "The stream has not begun.");
  }

  #unlessLeft(error: unknown): void {
    if (!(this.#left && error instanceof SluiceError && error.problem.type.endsWith(":left"))) {
      throw error;
    }
  }
}

const NEVER_BEGAN: Closed = {
  status: "cancelled",
  finish_reason: "cancelled",
  usage: null,
  error: null,
};

/** Who does not ask for it need not handle it: the state says the same. */
function heeded<T>(done: Promise<T>): Promise<T> {
  done.catch(() => {});
  return done;
}

function unknownQuestion(): SluiceError {
  return clientError(
    "unknown-question",
    "What this stream was asked is not known here: pass `request` where you follow it.",
  );
}
