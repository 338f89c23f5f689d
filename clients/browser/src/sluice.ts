import { type Context, FollowedAnswer } from "./answer.js";
import { type Ask, type Call, caller, newKey, pathOf } from "./call.js";
import { credentials } from "./credentials.js";
import { insist } from "./insist.js";
import type {
  Answer,
  FollowOptions,
  Options,
  Saved,
  StartRequest,
  StreamPage,
  Summary,
  Usage,
} from "./types.js";

/**
 * One Sluice, as one credential sees it. What is asked at once throws `SluiceError`; an `Answer`
 * tells by its state.
 */
export class Sluice {
  readonly #call: Call;
  readonly #context: Context;

  constructor(options: Options) {
    const held = credentials(options.credential);
    this.#call = caller(options, held);
    const start = (request: StartRequest) => this.start(request);
    this.#context = { call: this.#call, credentials: held, start };
  }

  /** Begin a stream, once, however often that has to be tried. */
  start(request: StartRequest): Answer {
    return this.restore({ after: -1, text: "", request, idempotencyKey: newKey() });
  }

  follow(stream: string, options: FollowOptions = {}): Answer {
    return this.restore({ after: -1, text: "", ...options, stream });
  }

  /** Go on with an answer of a page that is gone, from its `saved()`. */
  restore(saved: Saved): Answer {
    return new FollowedAnswer(this.#context, saved);
  }

  streams({ limit, page }: { limit?: number; page?: string } = {}): Promise<StreamPage> {
    const query = new URLSearchParams();
    if (limit !== undefined) query.set("limit", String(limit));
    if (page !== undefined) query.set("page", page);
    return this.#json({ path: `/v1/streams?${query}` });
  }

  stream(id: string): Promise<Summary> {
    return this.#json({ path: pathOf(id) });
  }

  usage(): Promise<Usage> {
    return this.#json({ path: "/v1/usage" });
  }

  /** Nobody finds it any more; what is left of it is removed in the background. */
  async erase(id: string): Promise<void> {
    await insist(this.#call, { method: "DELETE", path: pathOf(id) }, (response) => response.text());
  }

  /** All that is held about it, as one JSON document. */
  exported(id: string): Promise<Blob> {
    const ask = { path: pathOf(id, "/export"), streams: true };
    return insist(this.#call, ask, (response) => response.blob());
  }

  #json<T>(ask: Ask): Promise<T> {
    return insist(this.#call, ask, (response) => response.json() as Promise<T>);
  }
}
