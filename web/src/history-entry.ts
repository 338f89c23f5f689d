import type { Summary } from "sluice-client";
import { element, setText } from "./element";
import { type Icon, icon } from "./icons";
import { nameOf } from "./models";
import { ago } from "./wording";

const STATUS: Record<Summary["status"], string> = {
  open: "running",
  paused: "paused",
  completed: "complete",
  cancelled: "stopped",
  failed: "failed",
};

/** A stream in the list. One stop for the Tab key: from its link, arrow keys lead to its buttons. */
export class HistoryEntry {
  readonly node = element("li");
  onopen = (): void => {};
  onexport = (): void => {};
  onerase = (): void => {};
  readonly #open: HTMLAnchorElement;
  readonly #title = element("span", { className: "history-title", dir: "auto" });
  readonly #told = element("span");
  readonly #export = button("download", () => this.onexport());
  readonly #erase = button("trash", () => this.onerase());

  constructor(id: string) {
    const address = { href: `#/s/${id}`, className: "history-open" };
    this.#open = element("a", address, this.#title, this.#told);
    this.#open.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.onopen();
    });
    const buttons = element("span", { className: "history-buttons" }, this.#export, this.#erase);
    this.node.append(this.#open, buttons);
    this.node.addEventListener("keydown", (event) => this.#onkey(event));
  }

  focus(): void {
    this.#open.focus();
  }

  /** Only what differs is changed: what has the focus keeps it. */
  show(summary: Summary, current: boolean): void {
    const title = titleOf(summary);
    setText(this.#title, title);
    setText(this.#told, `${STATUS[summary.status]} · ${ago(summary.created_at, Date.now())}`);
    this.#told.className = `history-told ${summary.status}`;
    this.#open.ariaCurrent = current ? "page" : null;
    this.#export.title = this.#export.ariaLabel = `Export “${title}”`;
    this.#erase.title = this.#erase.ariaLabel = `Delete “${title}”`;
  }

  #onkey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const row: HTMLElement[] = [this.#open, this.#export, this.#erase];
    const at = row.indexOf(event.target as HTMLElement);
    const to = {
      ArrowLeft: row[at - 1],
      ArrowRight: row[at + 1],
      ArrowUp: this.node.previousElementSibling?.querySelector("a"),
      ArrowDown: this.node.nextElementSibling?.querySelector("a"),
    }[event.key];
    if (event.key === "Delete") this.onerase();
    else if (!to) return;
    event.preventDefault();
    to?.focus();
  }
}

export function titleOf({ metadata, model }: Summary): string {
  return metadata.question || nameOf(model);
}

function button(name: Icon, does: () => void): HTMLButtonElement {
  const made = element(
    "button",
    { type: "button", className: "icon-button small", tabIndex: -1 },
    icon(name),
  );
  made.addEventListener("click", does);
  return made;
}
