const WHOLE = new Intl.NumberFormat("en");

export function whole(value: number): string {
  return WHOLE.format(Math.round(value));
}

export function several(count: number, one: string, many = `${one}s`): string {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** A length of time, as short as it can be said: "320 ms", "4.2 s", "3 min", "5 h", "2 d". */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 90 * 60_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 36 * 3_600_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

/** When something was, seen from now: "now", "4 min ago", then the date. */
export function ago(then: number, now: number): string {
  const past = now - then;
  if (past < 60_000) return "now";
  if (past < 90 * 60_000) return `${Math.round(past / 60_000)} min ago`;
  if (past < 6 * 86_400_000) return `${duration(past)} ago`;
  return new Date(then).toLocaleDateString("en", { day: "numeric", month: "short" });
}

/** A time of day, "16:05", with its date where that is not today's: "3 Dec, 16:05". */
export function clock(then: number, now: number): string {
  const sameDay = new Date(then).toDateString() === new Date(now).toDateString();
  return new Date(then).toLocaleString("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    ...(sameDay ? {} : { day: "numeric", month: "short" }),
  });
}

/** A size in bytes: "812 B", "4.1 kB". */
export function size(bytes: number): string {
  return bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`;
}

/** Seconds until then, never below 1: what counts down is not over before it is. */
export function secondsUntil(then: number, now: number): number {
  return Math.max(1, Math.ceil((then - now) / 1000));
}

export function words(text: string): number {
  return text.match(/\S+/g)?.length ?? 0;
}
