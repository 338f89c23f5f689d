import { broken, type Call, pathOf } from "../call.js";
import { Broken } from "../errors.js";
import { guard } from "../guard.js";
import type { Closed, ClosedStatus, LogEvent, PauseReason } from "../types.js";
import { checked, object } from "./events.js";

/** For how long a poll waits for something new, in s. The API has 29 s for an answer. */
export const WAIT_S = 15;
const LIMIT = 1000;
/** Without a byte of a page, beyond its wait. */
const SILENCE_MS = 10_000;
/** More than a page has: 512 Ki characters, each escaped. */
const PAGE_CHARS_MAX = 8 * 1024 * 1024;

interface OnTheWire extends Omit<Closed, "status"> {
  chunks: { seq: number; text: string }[];
  next: number;
  status: "open" | "paused" | ClosedStatus;
  closed: boolean;
  poll_after_ms: number;
  reason?: PauseReason;
}

export interface Page {
  /** Its chunks, and the end where it has come. */
  events: LogEvent[];
  /** The `after` of the next poll. */
  next: number;
  /** Why it is paused, where it is. */
  paused: PauseReason | undefined;
  pollAfterMs: number;
}

/** One poll. Throws as `Call` does, and `Broken` where no page comes. */
export async function poll(
  call: Call,
  stream: string,
  { after, waitS }: { after: number; waitS: number },
  signal: AbortSignal,
): Promise<Page> {
  const path = pathOf(stream, `/chunks?after=${after}&limit=${LIMIT}&wait=${waitS}`);
  return decodePage(await fetched(call, { path }, signal, waitS * 1000 + SILENCE_MS));
}

/** Begin a stream that is polled, or find the one that this key has begun already. Returns its id. */
export async function begin(
  call: Call,
  ask: { body: string; headers: Record<string, string> },
  signal: AbortSignal,
): Promise<string> {
  const headers = { ...ask.headers, prefer: "respond-async" };
  const said = await fetched(
    call,
    { method: "POST", path: "/v1/streams", ...ask, headers },
    signal,
    SILENCE_MS,
  );
  const { id } = object(said);
  checked(typeof id === "string", "an answer without an id");
  return id as string;
}

export function decodePage(text: string): Page {
  const page = object(text) as unknown as OnTheWire;
  checked(Array.isArray(page.chunks) && Number.isSafeInteger(page.next), "a page without chunks");
  const events: LogEvent[] = page.chunks.map(({ seq, text }) => {
    checked(Number.isSafeInteger(seq) && typeof text === "string", "a chunk without a text");
    return { type: "chunk", seq, text };
  });
  if (page.closed) {
    const { finish_reason, usage, error } = page;
    const status = page.status as ClosedStatus;
    events.push({ type: "closed", seq: page.next, status, finish_reason, usage, error });
  }
  const pollAfterMs = Math.max(Number(page.poll_after_ms) || 0, 0);
  const paused = page.status === "paused" ? (page.reason ?? "requested") : undefined;
  return { events, next: page.next, paused, pollAfterMs };
}

/** A whole body, as long as bytes of it keep coming. */
async function fetched(
  call: Call,
  ask: Parameters<Call>[0],
  signal: AbortSignal,
  silenceMs: number,
): Promise<string> {
  const watch = guard(
    signal,
    silenceMs,
    (slept) => new Broken(slept ? "interrupted" : "lost", "no answer in time"),
  );
  try {
    const response = await watch.within(call(ask, watch.signal));
    const reader = response.body?.getReader();
    const next = () => reader && watch.within(reader.read());
    const decoder = new TextDecoder();
    let text = "";
    for (let read = await next(); read && !read.done; read = await next()) {
      watch.heard();
      text += decoder.decode(read.value, { stream: true });
      checked(text.length <= PAGE_CHARS_MAX, "an endless page");
    }
    return text;
  } catch (error) {
    throw broken(error, watch.signal);
  } finally {
    watch.end();
  }
}
