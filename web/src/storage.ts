import type { Saved } from "sluice-client";

/** Where the page keeps what outlives it. A browser may refuse to keep anything; then it is forgotten. */
export class Memory {
  constructor(
    private readonly tab: Storage | undefined = available(() => sessionStorage),
    private readonly device: Storage | undefined = available(() => localStorage),
  ) {}

  get key(): string | undefined {
    return read(this.tab, "sluice.key") ?? read(this.device, "sluice.key");
  }

  /** For this tab, or for this device until it is forgotten. */
  keepKey(key: string, remember: boolean): void {
    this.forgetKey();
    write(remember ? this.device : this.tab, "sluice.key", key);
  }

  forgetKey(): void {
    write(this.tab, "sluice.key", undefined);
    write(this.device, "sluice.key", undefined);
  }

  /** The answer that this tab was receiving, so that a reload goes on with it. */
  get running(): Running | undefined {
    return parse<Running>(read(this.tab, "sluice.running"));
  }

  set running(running: Running | undefined) {
    write(this.tab, "sluice.running", running && JSON.stringify(running));
  }

  get(name: Choice): string | undefined {
    return read(this.device, `sluice.${name}`);
  }

  set(name: Choice, value: string | undefined): void {
    write(this.device, `sluice.${name}`, value);
  }
}

export interface Running {
  question: string;
  model: string;
  parent: string | undefined;
  saved: Saved;
}

export type Choice = "theme" | "model" | "panel" | "shortcuts";

function available(storage: () => Storage): Storage | undefined {
  try {
    return storage();
  } catch {
    return undefined;
  }
}

function read(storage: Storage | undefined, name: string): string | undefined {
  return storage?.getItem(name) ?? undefined;
}

function write(storage: Storage | undefined, name: string, value: string | undefined): void {
  try {
    if (value === undefined) storage?.removeItem(name);
    else storage?.setItem(name, value);
  } catch {
    // It is full: what is kept there is a convenience.
  }
}

function parse<T>(json: string | undefined): T | undefined {
  try {
    return json === undefined ? undefined : (JSON.parse(json) as T);
  } catch {
    return undefined;
  }
}
