import { Broken } from "../errors.js";
import type { LogEvent } from "../types.js";

/** An event as it is on the wire. */
export interface Message {
  id?: string | undefined;
  event?: string | undefined;
  data: string;
}

/** What each event carries, and of which type. */
const FIELDS: Record<LogEvent["type"], Record<string, string>> = {
  opened: { id: "string", model: "string" },
  chunk: { text: "string" },
  epoch: { epoch: "number" },
  expiring: {},
  paused: { reason: "string" },
  granted: {},
  closed: { status: "string", finish_reason: "string" },
};

/** The log's event in a message; undefined for one that this version does not know. */
export function decode(message: Message): LogEvent | undefined {
  const type = message.event ?? "";
  if (!Object.hasOwn(FIELDS, type)) return undefined;
  const seq = /^\d+$/.test(message.id ?? "") ? Number(message.id) : Number.NaN;
  const data = object(message.data);
  checked(Number.isSafeInteger(seq), `\`${type}\` without a number`);
  for (const [name, kind] of Object.entries(FIELDS[type as LogEvent["type"]])) {
    checked(typeof data[name] === kind, `\`${type}\` without \`${name}\``);
  }
  return { ...data, type, seq } as LogEvent;
}

/** The JSON object that came; whatever else came was mangled on the way. */
export function object(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // as below
  }
  throw new Broken("lost", "something that is no JSON came");
}

export function checked(right: boolean, what: string): void {
  if (!right) throw new Broken("lost", `${what} came`);
}
