import { element, part } from "./element";
import { type Icon, icon } from "./icons";
import { type Choice, choices } from "./models";
import type { Turn } from "./turn";

/** What a reader may ask at once; the server takes 256 KiB. */
const QUESTION_CHARS_MAX = 60_000;

/** Where questions are written, and the answer that runs is steered. */
export class Composer {
  onask = (_question: string): void => {};
  onstop = (): void => {};
  onpause = (): void => {};
  oncontinue = (): void => {};
  readonly #form = part<HTMLFormElement>("composer");
  readonly #question = part<HTMLTextAreaElement>("question");
  readonly #model = part<HTMLSelectElement>("model");
  readonly #hint = part("hint");
  readonly #pause = this.#button("pause", "Pause", "quiet");
  readonly #continue = this.#button("play", "Continue", "quiet");
  readonly #stop = this.#button("stop", "Stop", "filled");
  readonly #send = this.#button("arrowUp", "Send", "filled", "submit");
  #turn: Turn | undefined;

  constructor(models: readonly string[], chosen: string | undefined) {
    this.#question.maxLength = QUESTION_CHARS_MAX;
    this.#offer(choices(models), chosen);
    part("composer-buttons").append(this.#pause, this.#continue, this.#stop, this.#send);
    this.#pause.addEventListener("click", () => this.onpause());
    this.#continue.addEventListener("click", () => this.oncontinue());
    this.#stop.addEventListener("click", () => this.onstop());
    this.#question.addEventListener("input", () => this.#show());
    this.#question.addEventListener("keydown", (event) => {
      // While an input method composes, Enter chooses a word.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const question = this.#question.value.trim();
      if (!question) return;
      this.#question.value = "";
      this.onask(question);
      this.#show();
    });
    this.#show();
  }

  get model(): string {
    return this.#model.value;
  }

  set onmodel(chosen: (model: string) => void) {
    this.#model.addEventListener("change", () => chosen(this.model));
  }

  focus(): void {
    this.#question.focus();
  }

  show(turn: Turn | undefined): void {
    this.#turn = turn;
    this.#show();
  }

  #show(): void {
    const state = this.#turn?.answer.state.is;
    const running = this.#turn?.running ?? false;
    const written = this.#question.value.trim() !== "";
    this.#pause.hidden = !running || !this.#turn?.id;
    this.#continue.hidden = state !== "paused";
    this.#stop.hidden = !running && state !== "paused";
    this.#send.hidden = running && !written;
    this.#send.disabled = !written;
    this.#stop.classList.toggle("filled", this.#send.hidden);
    this.#question.placeholder = running
      ? "Add something, and the answer begins anew"
      : "Ask anything";
    const steerable = running || state === "paused";
    this.#hint.classList.toggle("refining", steerable);
    this.#hint.replaceChildren(...(steerable ? refining(state) : idle()));
  }

  #offer(offered: readonly Choice[], chosen: string | undefined): void {
    const options = offered.map(({ model, label }) =>
      element("option", { value: model, textContent: label }),
    );
    this.#model.append(...options);
    if (offered.some(({ model }) => model === chosen)) this.#model.value = chosen ?? "";
  }

  #button(
    name: Icon,
    label: string,
    look: string,
    type: "button" | "submit" = "button",
  ): HTMLButtonElement {
    return element(
      "button",
      { type, className: `round ${look}`, ariaLabel: label, title: label },
      icon(name),
    );
  }
}

function idle(): (Node | string)[] {
  return [
    key("Enter"),
    " sends, ",
    key("Shift"),
    " ",
    key("Enter"),
    " breaks the line, ",
    key("?"),
    " lists all keys",
  ];
}

function refining(state: string | undefined): (Node | string)[] {
  const keys = element("span", { className: "keys" }, key("Esc"));
  keys.append(state === "paused" ? " stops it. " : " pauses, twice stops. ");
  return [keys, "Sending refines: this answer ends, and the next one knows its text."];
}

function key(name: string): HTMLElement {
  return element("kbd", { textContent: name });
}
