import type { Credentials } from "./credentials.js";
import { Broken, refusal, SluiceError } from "./errors.js";
import type { Options } from "./types.js";

export interface Ask {
  method?: "GET" | "POST" | "DELETE";
  path: string;
  /** It is served where streams are, not by the API. */
  streams?: boolean;
  body?: string;
  headers?: Record<string, string>;
}

/**
 * Sends a request, once more where its credential has ended and there is another. Returns a response
 * that is a success. Throws `SluiceError` where it is refused, `Broken` where nothing answered, and
 * the signal's reason.
 */
export type Call = (ask: Ask, signal: AbortSignal) => Promise<Response>;

export function caller(options: Options, credentials: Credentials): Call {
  const url = trimmed(options.url ?? "");
  const api = trimmed(options.api ?? url);
  const send = options.fetch ?? ((...args: Parameters<typeof fetch>) => fetch(...args));

  async function once(ask: Ask, credential: string, signal: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { ...ask.headers, ...shown(credential) };
    if (ask.body !== undefined) headers["content-type"] = "application/json";
    if (ask.method && options.bodyHash) headers["x-amz-content-sha256"] = await sha256(ask.body);
    return send((ask.streams ? url : api) + ask.path, {
      method: ask.method ?? "GET",
      headers,
      cache: "no-store",
      signal,
      ...(ask.body === undefined ? {} : { body: ask.body }),
    });
  }

  return async (ask, signal) => {
    try {
      const credential = await credentials.show();
      let response = await once(ask, credential, signal);
      if (response.status === 401) {
        const refused = await refusal(response);
        const fresh = await credentials.renew(credential);
        if (fresh === credential) throw refused;
        response = await once(ask, fresh, signal);
      }
      if (!response.ok) throw await refusal(response);
      return response;
    } catch (error) {
      throw broken(error, signal);
    }
  };
}

/** What a failed request or read means: fetch tells no more than that there was no connection. */
export function broken(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof SluiceError || error instanceof Broken) return error;
  return new Broken("lost", "no connection", { cause: error });
}

/** How a credential is shown. An edge that signs `Authorization` itself hands this on beside it. */
function shown(credential: string): Record<string, string> {
  return { authorization: `Bearer ${credential}` };
}

async function sha256(body = ""): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(body));
  return hex(new Uint8Array(digest));
}

/** An idempotency key: as random as a UUID, which a browser makes in a secure context only. */
export function newKey(): string {
  return hex(crypto.getRandomValues(new Uint8Array(16)));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function trimmed(url: string): string {
  return url.replace(/\/+$/, "");
}

/** The path of a stream, and what is below it. */
export function pathOf(stream: string, below = ""): string {
  return `/v1/streams/${encodeURIComponent(stream)}${below}`;
}
