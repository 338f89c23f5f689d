import { type Ask, newKey } from "./call.js";
import { isOurs, SluiceError } from "./errors.js";
import type { StartRequest } from "./types.js";

/** What begins a stream: the same bytes and the same key each time, so that it begins once. */
export class Beginning {
  /** It was sent, and nobody knows whether it was carried out: the stream may run. */
  uncertain = false;

  constructor(
    readonly request: StartRequest,
    public idempotencyKey: string,
  ) {}

  /** Begin, or find what was begun. Throws as `by` does. */
  async send<T>(
    by: (ask: Ask & { body: string; headers: Record<string, string> }) => Promise<T>,
  ): Promise<T> {
    this.uncertain = true;
    try {
      return await by({
        method: "POST",
        path: "/v1/streams",
        body: JSON.stringify(this.request),
        headers: { "idempotency-key": this.idempotencyKey },
      });
    } catch (error) {
      // Refused, and not for who repeats it: there would be an answer for what had begun.
      if (error instanceof SluiceError && isOurs(error) && error.status !== 401) {
        this.uncertain = false;
      }
      throw error;
    }
  }

  /** Before another try of what was refused: the same key would be told the same again. */
  renew(): void {
    if (!this.uncertain) this.idempotencyKey = newKey();
  }
}
