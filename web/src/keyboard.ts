import { dialog } from "./dialogs";
import { element } from "./element";
import type { Memory } from "./storage";

export interface Shortcut {
  key: string;
  does: string;
  run: () => void;
}

const ALWAYS: readonly [string[], string][] = [
  [["Enter"], "Send the question"],
  [["Shift", "Enter"], "Break the line"],
  [["Esc"], "Pause the answer; once more: stop it"],
  [["↑", "↓"], "In the history: another answer"],
  [["←", "→"], "In the history: export and delete"],
];

/** Single keys, while nothing is being typed; they can be turned off (WCAG 2.1.4). */
export class Keyboard {
  constructor(
    private readonly shortcuts: readonly Shortcut[],
    private readonly memory: Memory,
    onescape: () => void,
  ) {
    document.addEventListener("keydown", (event) => {
      if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]"))
        return;
      if (event.repeat) return; // a key that is held down would ask again and again
      if (event.key === "Escape") return onescape();
      if (event.ctrlKey || event.metaKey || event.altKey || types(event.target)) return;
      const shortcut = this.#on && this.#all.find(({ key }) => key === event.key);
      if (!shortcut) return;
      event.preventDefault();
      shortcut.run();
    });
  }

  get #on(): boolean {
    return this.memory.get("shortcuts") !== "off";
  }

  get #all(): Shortcut[] {
    return [...this.shortcuts, { key: "?", does: "List the shortcuts", run: () => this.list() }];
  }

  list(): void {
    const singles = this.#all.map(({ key, does }): [string[], string] => [[key], does]);
    const rows = [...ALWAYS, ...singles].map(([keys, does]) =>
      element(
        "div",
        {},
        element("dt", {}, ...keys.map((key) => element("kbd", { textContent: key }))),
        element("dd", { textContent: does }),
      ),
    );
    const on = element("input", { type: "checkbox", id: "shortcuts", checked: this.#on });
    on.addEventListener("change", () =>
      this.memory.set("shortcuts", on.checked ? undefined : "off"),
    );
    const close = element("button", { type: "button", className: "button", textContent: "Close" });
    const made = dialog(
      "Keyboard",
      element("dl", { className: "shortcuts" }, ...rows),
      element(
        "label",
        { className: "check", htmlFor: "shortcuts" },
        on,
        "Single keys do something",
      ),
      element("div", { className: "dialog-buttons" }, close),
    );
    close.addEventListener("click", () => made.close());
  }
}

function types(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]")
  );
}
