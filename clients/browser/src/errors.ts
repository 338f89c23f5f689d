import type { Problem } from "./types.js";

/**
 * A request that was refused, or an answer that was given up. `status` is 0 where nothing answered;
 * `retryAfterMs` is when the server said to come again.
 */
export class SluiceError extends Error {
  readonly problem: Problem;
  readonly status: number;
  readonly retryAfterMs: number | undefined;

  constructor(
    problem: Problem,
    options: ErrorOptions & { retryAfterMs?: number | undefined } = {},
  ) {
    super(problem.detail ?? problem.title ?? problem.type, options);
    this.name = "SluiceError";
    this.problem = problem;
    this.status = problem.status ?? 0;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Whether the server itself says so, and not something on the way to it. */
export function isOurs(error: SluiceError): boolean {
  return error.problem.type.startsWith("urn:sluice:problem:");
}

/** An error of the client's own. */
export function clientError(slug: string, detail: string, cause?: unknown): SluiceError {
  return new SluiceError({ type: `urn:sluice:client:${slug}`, detail }, { cause });
}

/** What a response that is no success tells. */
export async function refusal(response: Response): Promise<SluiceError> {
  const { status } = response;
  const problem: Problem = { type: "about:blank", title: `The server answered ${status}`, status };
  try {
    const said: unknown = await response.json();
    if (typeof (said as Problem | null)?.type === "string") {
      Object.assign(problem, said, { status });
    }
  } catch {
    // Not ours: a gateway's page, or cut off. The status says enough.
  }
  const running = /\/streams\/([^/]+)/.exec(response.headers.get("location") ?? "")?.[1];
  if (status === 409 && running) problem.stream ??= running;
  return new SluiceError(problem, {
    retryAfterMs: retryAfter(response.headers.get("retry-after")),
  });
}

/** `Retry-After` in ms from now: seconds, or a date. */
export function retryAfter(value: string | null, now = Date.now()): number | undefined {
  if (!value) return undefined;
  const seconds = Number(value);
  const ms = Number.isNaN(seconds) ? Date.parse(value) - now : seconds * 1000;
  return Number.isNaN(ms) ? undefined : Math.max(ms, 0);
}

/**
 * How a connection broke. `lost`: try again after a while. `interrupted`: on purpose, so at once.
 * `told`: the server says when to come again. `buffered`, `refused`: streams do not come through.
 */
export type Breakage = "lost" | "interrupted" | "told" | "buffered" | "refused";

/** A connection that broke. It reaches nobody but the follower. */
export class Broken extends Error {
  readonly how: Breakage;
  readonly afterMs: number;

  constructor(how: Breakage, why: string, options: ErrorOptions & { afterMs?: number } = {}) {
    super(why, options);
    this.how = how;
    this.afterMs = options.afterMs ?? 0;
  }
}
