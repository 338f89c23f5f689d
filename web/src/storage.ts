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
    const storage = remember ? this.device : this.tab;
    write(storage, "sluice.key", key);
    write(storage, "sluice.signed-in", new Date().toISOString());
  }

  forgetKey(): void {
    for (const storage of [this.tab, this.device]) {
      write(storage, "sluice.key", undefined);
      write(storage, "sluice.signed-in", undefined);
    }
  }

  /** The answer that this tab was receiving, so that a reload goes on with it: for who has signed in, and no other. */
  get running(): Running | undefined {
    const kept = parse<Partial<Kept>>(read(this.tab, "sluice.running"));
    if (!kept?.saved || kept.signedIn !== this.#signedIn) return undefined;
    const { signedIn: _, ...running } = kept as Kept;
    return running;
  }

  set running(running: Running | undefined) {
    const kept: Kept | undefined = running && { ...running, signedIn: this.#signedIn };
    // First away: an older answer is worse than none, and there may be no room for this one.
    write(this.tab, "sluice.running", undefined);
    if (kept) write(this.tab, "sluice.running", JSON.stringify(kept));
  }

  /** Tells one who has signed in from the next, without the key: a tab may be opened again long after. */
  get #signedIn(): string | undefined {
    return read(this.tab, "sluice.signed-in") ?? read(this.device, "sluice.signed-in");
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

interface Kept extends Running {
  signedIn: string | undefined;
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
