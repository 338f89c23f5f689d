import type { Sluice, Summary } from "sluice-client";
import { confirmed } from "./dialogs";
import { arrange, element } from "./element";
import { HistoryEntry, titleOf } from "./history-entry";

const PAGE = 30;

/** The streams that there are, the newest first. */
export class History {
  onopen = (_id: string): void => {};
  onerased = (_id: string): void => {};
  onproblem = (_error: unknown): void => {};
  readonly #list = element("ul");
  readonly #more = element("button", {
    type: "button",
    className: "button quiet",
    textContent: "Show more",
    hidden: true,
  });
  readonly #none = element("p", {
    className: "history-none",
    textContent: "Your answers will be listed here.",
    hidden: true,
  });
  readonly #entries = new Map<string, HistoryEntry>();
  #streams: Summary[] = [];
  #next: string | null = null;
  #current: string | undefined;

  constructor(
    host: HTMLElement,
    private readonly sluice: Sluice,
  ) {
    host.replaceChildren(this.#none, this.#list, this.#more);
    this.#more.addEventListener("click", () => void this.#load(this.#next ?? undefined));
  }

  /** Forget them all: they may be another's. */
  clear(): void {
    this.#streams = [];
    this.#draw();
  }

  /** Have the newest page anew; what was shown behind it stays. */
  refresh(): Promise<void> {
    return this.#load(undefined);
  }

  set current(id: string | undefined) {
    if (id === this.#current) return;
    this.#current = id;
    this.#draw();
  }

  async #load(page: string | undefined): Promise<void> {
    try {
      const found = await this.sluice.streams({ limit: PAGE, ...(page ? { page } : {}) });
      const oldest = found.streams.at(-1)?.created_at ?? 0;
      // Pages that were asked for at once overlap, and may come in any order.
      const ids = new Set(found.streams.map(({ id }) => id));
      const others = this.#streams.filter(({ id }) => !ids.has(id));
      const older = others.filter(({ created_at }) => created_at <= oldest);
      if (page || !older.length) this.#next = found.next_page;
      this.#streams = page ? [...others, ...found.streams] : [...found.streams, ...older];
      this.#draw();
    } catch (error) {
      this.onproblem(error);
    }
  }

  #draw(): void {
    this.#more.hidden = !this.#next;
    this.#none.hidden = this.#streams.length > 0;
    const ids = new Set(this.#streams.map(({ id }) => id));
    for (const id of this.#entries.keys()) if (!ids.has(id)) this.#entries.delete(id);
    arrange(
      this.#list,
      this.#streams.map((summary) => this.#entry(summary).node),
    );
  }

  #entry(summary: Summary): HistoryEntry {
    const { id } = summary;
    const entry = this.#entries.get(id) ?? this.#made(id);
    entry.show(summary, id === this.#current);
    return entry;
  }

  #made(id: string): HistoryEntry {
    const entry = new HistoryEntry(id);
    entry.onopen = () => this.onopen(id);
    entry.onexport = () => void this.#export(id);
    entry.onerase = () => void this.#erase(id);
    this.#entries.set(id, entry);
    return entry;
  }

  async #export(id: string): Promise<void> {
    try {
      const url = URL.createObjectURL(await this.sluice.exported(id));
      element("a", { href: url, download: `${id}.json` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.onproblem(error);
    }
  }

  async #erase(id: string): Promise<void> {
    const at = this.#streams.findIndex((each) => each.id === id);
    const summary = this.#streams[at];
    if (!summary) return;
    const text = `“${titleOf(summary)}” is erased with all that is held about it. This cannot be undone.`;
    if (!(await confirmed("Delete this answer?", text, "Delete"))) return;
    try {
      await this.sluice.erase(id);
      this.#streams = this.#streams.filter((each) => each.id !== id);
      this.#draw();
      // What had the focus is gone: it goes to what took its place.
      const next = this.#streams[Math.min(at, this.#streams.length - 1)];
      if (next) this.#entries.get(next.id)?.focus();
      this.onerased(id);
    } catch (error) {
      this.onproblem(error);
    }
  }
}
