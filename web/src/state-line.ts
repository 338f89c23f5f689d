import { type Description, describe, type Remedy } from "./describe";
import { element, setText } from "./element";
import type { Turn } from "./turn";

const REMEDIES: Record<Remedy, string> = {
  retry: "Try now",
  resume: "Continue",
  regenerate: "Answer again",
  key: "Enter a key",
};

/** One line that always says how the last answer stands, and what can be done. */
export class StateLine {
  onremedy = (_remedy: Remedy): void => {};
  readonly #dot = element("span", { className: "state-dot" });
  readonly #text = element("strong", { className: "state-text" });
  readonly #detail = element("span", { className: "state-detail", dir: "auto" });
  readonly #button = element("button", { type: "button", className: "button small", hidden: true });
  #turn: Turn | undefined;
  #remedy: Remedy | undefined;

  constructor(host: HTMLElement) {
    host.append(this.#dot, this.#text, this.#detail, this.#button);
    this.#host = host;
    this.#button.addEventListener("click", () => this.#remedy && this.onremedy(this.#remedy));
    // What counts down changes by itself.
    setInterval(() => this.#turn && this.show(this.#turn), 1000);
  }

  readonly #host: HTMLElement;

  show(turn: Turn | undefined): void {
    this.#turn = turn;
    this.#host.classList.toggle("idle", !turn);
    if (!turn) return;
    const silentMs = turn.figures.silentMs(performance.now());
    const { remedy, ...told } = describe(turn.answer.state, Date.now(), silentMs);
    // What is not known whole cannot be asked again.
    const possible = remedy !== "regenerate" || turn.repeatable;
    this.#tell({ ...told, ...(remedy && possible ? { remedy } : {}) });
  }

  #tell({ tone, text, detail = "", remedy }: Description): void {
    this.#host.dataset.tone = tone;
    setText(this.#text, text);
    setText(this.#detail, detail);
    this.#detail.title = detail;
    this.#remedy = remedy;
    this.#button.hidden = !remedy;
    if (remedy) setText(this.#button, REMEDIES[remedy]);
  }
}
