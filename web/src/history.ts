import type { Sluice, Summary } from "sluice-client";
import { confirmed } from "./dialogs";
import { element } from "./element";
import { type Icon, icon } from "./icons";
import { nameOf } from "./models";
import { ago } from "./wording";

const PAGE = 30;

const STATUS: Record<Summary["status"], string> = {
  open: "running",
  paused: "paused",
  completed: "complete",
  cancelled: "stopped",
  failed: "failed",
};

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
  #streams: Summary[] = [];
  #next: string | null = null;
  #current: string | undefined;

  constructor(
    host: HTMLElement,
    private readonly sluice: Sluice,
  ) {
    host.replaceChildren(this.#list, this.#more);
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
    const empty = element("li", {
      className: "history-none",
      textContent: "Your answers will be listed here.",
    });
    this.#list.replaceChildren(
      ...(this.#streams.length ? this.#streams.map((each) => this.#item(each)) : [empty]),
    );
  }

  #item(summary: Summary): HTMLElement {
    const { id, status, created_at } = summary;
    const title = titleOf(summary);
    const open = element(
      "a",
      { href: `#/s/${id}`, className: "history-open" },
      element("span", { className: "history-title", dir: "auto", textContent: title }),
      element(
        "span",
        { className: `history-told ${status}` },
        STATUS[status],
        ` · ${ago(created_at, Date.now())}`,
      ),
    );
    if (id === this.#current) open.setAttribute("aria-current", "page");
    open.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.onopen(id);
    });
    return element(
      "li",
      {},
      open,
      element(
        "span",
        { className: "history-buttons" },
        button("download", `Export “${title}”`, () => void this.#export(id)),
        button("trash", `Delete “${title}”`, () => void this.#erase(summary)),
      ),
    );
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

  async #erase(summary: Summary): Promise<void> {
    const text = `“${titleOf(summary)}” is erased with all that is held about it. This cannot be undone.`;
    if (!(await confirmed("Delete this answer?", text, "Delete"))) return;
    try {
      await this.sluice.erase(summary.id);
      this.#streams = this.#streams.filter(({ id }) => id !== summary.id);
      this.#draw();
      this.onerased(summary.id);
    } catch (error) {
      this.onproblem(error);
    }
  }
}

function titleOf({ metadata, model }: Summary): string {
  return metadata.question || nameOf(model);
}

function button(name: Icon, label: string, does: () => void): HTMLElement {
  const made = element(
    "button",
    { type: "button", className: "icon-button small", ariaLabel: label, title: label },
    icon(name),
  );
  made.addEventListener("click", does);
  return made;
}
