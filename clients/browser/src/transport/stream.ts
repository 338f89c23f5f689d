import { createParser } from "eventsource-parser";
import { type Ask, broken, type Call } from "../call.js";
import { Broken } from "../errors.js";
import { type Guard, guard } from "../guard.js";
import type { Message } from "./events.js";

/**
 * To the first bytes. The server begins within a second, and at once with an event: a follower asks
 * for one more than it needs.
 */
const FIRST_MS = 4000;
/** Between two bytes: the server breaks a silence every 15 s. */
const SILENCE_MS = 22_000;
/** More than any event has. */
const EVENT_CHARS_MAX = 8 * 1024 * 1024;

/** A connection whose first bytes have come. */
export interface Connection {
  /** The stream's id, where its head tells. */
  stream: string | undefined;
  /** What came with each read. Ends where the connection does, and throws `Broken` where it broke. */
  reads: AsyncGenerator<Message[]>;
  /** What the server said last of when to come again, in ms. */
  retryMs: number;
  /** Look whether it still lives, by the clock. */
  look(): void;
  end(reason: Broken): void;
}

/**
 * Open an event stream. Resolves when its first bytes have come; with undefined where there is
 * nothing after what was seen (204). Throws as `Call` does, and `Broken` where it is held back.
 */
export async function connect(
  call: Call,
  ask: Ask,
  signal: AbortSignal,
): Promise<Connection | undefined> {
  const watch = guard(signal, FIRST_MS, silence);
  try {
    const headers = { ...ask.headers, accept: "text/event-stream" };
    const response = await watch.within(call({ ...ask, headers, streams: true }, watch.signal));
    if (response.status === 204) {
      watch.end();
      return undefined;
    }
    if (!response.headers.get("content-type")?.startsWith("text/event-stream") || !response.body) {
      throw new Broken("refused", "no event stream came");
    }
    const reader = response.body.getReader();
    const first = await watch.within(reader.read());
    watch.heard(SILENCE_MS);
    const stream = response.headers.get("stream-id") ?? undefined;
    return reading(reader, first, watch, stream);
  } catch (error) {
    const reason = broken(error, watch.signal);
    watch.end();
    throw reason;
  }
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;

function reading(
  reader: Reader,
  first: Awaited<ReturnType<Reader["read"]>>,
  watch: Guard,
  stream: string | undefined,
): Connection {
  const found: Message[] = [];
  const parser = createParser({
    onEvent: (message) => found.push(message),
    onRetry(ms) {
      connection.retryMs = ms;
    },
    onError(error) {
      // All else is a line that a later version may know.
      if (error.type === "max-buffer-size-exceeded") {
        throw new Broken("lost", "an endless event came");
      }
    },
    maxBufferSize: EVENT_CHARS_MAX,
  });

  async function* reads(): AsyncGenerator<Message[]> {
    const decoder = new TextDecoder();
    try {
      for (let read = first; !read.done; read = await watch.within(reader.read())) {
        watch.heard();
        parser.feed(decoder.decode(read.value, { stream: true }));
        yield found.splice(0);
      }
    } catch (error) {
      throw broken(error, watch.signal);
    } finally {
      watch.end();
    }
  }

  const connection: Connection = {
    stream,
    reads: reads(),
    retryMs: 0,
    look: watch.look,
    end: watch.end,
  };
  return connection;
}

function silence(slept: boolean): Broken {
  if (slept) return new Broken("interrupted", "asleep");
  return new Broken("buffered", "the stream is held back");
}
