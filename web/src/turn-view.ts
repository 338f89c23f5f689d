import type { AnswerEvent } from "sluice-client";
import { copyText } from "./clipboard";
import { describe } from "./describe";
import { element } from "./element";
import { type Icon, icon } from "./icons";
import { MarkdownView } from "./markdown";
import { nameOf } from "./models";
import { routeTo } from "./route";
import { Seams } from "./seams";
import type { Turn } from "./turn";
import { several, words } from "./wording";

let views = 0;

/** A question and its answer on the page. */
export class TurnView {
  readonly node: HTMLElement;
  readonly markdown: MarkdownView;
  /** After each rendering of new text. */
  onrender = (): void => {};
  oncopied = (_copied: boolean): void => {};
  onregenerate = (): void => {};
  onchoose = (_sibling: Turn): void => {};
  readonly #text = element("div", { className: "answer-text", dir: "auto" });
  readonly #foot = element("footer", { className: "turn-foot" });
  readonly #seams: Seams;
  readonly #prefix: string;
  /** What came since a seam, until what lies before it is shown: only then is its place known. */
  #held: AnswerEvent[] = [];
  #ended = false;
  /** Whether the next seam comes from a pause. */
  #resumed = false;
  #last = false;

  constructor(readonly turn: Turn) {
    views += 1;
    this.#prefix = `t${views}-`;
    const answer = element("div", { className: "answer" }, this.#text);
    this.#seams = new Seams(answer, this.#text);
    this.markdown = new MarkdownView(this.#text, {
      idPrefix: this.#prefix,
      hrefOf: (heading) => routeTo({ stream: turn.id, heading }),
    });
    this.markdown.onchange = () => this.#onrendered();
    this.node = element(
      "article",
      { className: "turn", attributes: { "aria-label": "Question and answer" } },
      turn.question === undefined
        ? element("p", { className: "question unknown", textContent: "Asked elsewhere" })
        : element("p", { className: "question", dir: "auto", textContent: turn.question }),
      answer,
      this.#foot,
    );
    if (turn.answer.text) this.markdown.reset(turn.answer.text);
    if (turn.over) this.#end();
    turn.answer.on((event) => this.#on(event));
    this.#show();
  }

  /** What an address calls a heading, and back: ids are of this page alone. */
  slugOf(id: string): string | undefined {
    return id.startsWith(this.#prefix) ? id.slice(this.#prefix.length) : undefined;
  }

  idOf(slug: string): string {
    return this.#prefix + slug;
  }

  /** Only the last turn's question can be answered again. */
  set last(last: boolean) {
    this.#last = last;
    this.#show();
  }

  #on(event: AnswerEvent): void {
    if (event.type === "granted") this.#resumed = true;
    if (event.type === "chunk" || (event.type === "epoch" && event.continuation)) {
      if (this.#held.length) this.#held.push(event);
      else this.#take(event);
    }
    if (event.type === "state" && event.state.is === "closed" && !this.#held.length) this.#end();
    this.#show();
  }

  #take(event: AnswerEvent): void {
    if (event.type === "chunk") {
      this.#resumed = false;
      this.markdown.append(event.text);
    } else if (event.type === "epoch") {
      if (this.markdown.settled) this.#seams.mark(event, this.#resumed);
      else this.#held.push(event);
    }
  }

  #onrendered(): void {
    if (!this.markdown.settled) return;
    const held = this.#held;
    this.#held = [];
    for (const event of held) {
      if (this.#held.length) this.#held.push(event);
      else this.#take(event);
    }
    if (held.length && this.turn.over && !this.#held.length) this.#end();
    this.#show();
    this.onrender();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.markdown.finish();
  }

  #show(): void {
    const { answer } = this.turn;
    this.node.dataset.state = answer.state.is;
    this.node.classList.toggle("silent", !answer.text && this.turn.running);
    // Below what is still to be shown it would be pushed down.
    if (this.turn.running || !this.markdown.settled) this.#foot.replaceChildren();
    else this.#foot.replaceChildren(...this.#parts());
  }

  *#parts(): Iterable<HTMLElement> {
    const { answer, siblings, repeatable, model } = this.turn;
    if (answer.text) {
      yield this.#button("copy", "Copy the answer", (button) => void this.#copy(button));
    }
    if (this.#last && repeatable) {
      yield this.#button("repeat", "Answer again", () => this.onregenerate());
      if (siblings.length > 1) yield this.#pager();
    }
    const { tone, text } = describe(answer.state, Date.now());
    const told = [tone === "failed" || text === "Stopped" ? text : "", nameOf(model)];
    if (answer.text) told.push(several(words(answer.text), "word"));
    yield element("span", {
      className: `turn-told ${tone}`,
      textContent: told.filter(Boolean).join(" · "),
    });
  }

  #pager(): HTMLElement {
    const { siblings } = this.turn;
    const at = siblings.indexOf(this.turn);
    const turn = (by: number, label: string, text: string) => {
      const sibling = siblings[at + by];
      const button = element("button", {
        type: "button",
        className: "icon-button small",
        textContent: text,
        ariaLabel: label,
        disabled: !sibling,
      });
      button.addEventListener("click", () => sibling && this.onchoose(sibling));
      return button;
    };
    return element(
      "span",
      { className: "pager" },
      turn(-1, "The answer before", "‹"),
      element("span", { textContent: `${at + 1} of ${siblings.length}` }),
      turn(1, "The next answer", "›"),
    );
  }

  #button(name: Icon, label: string, does: (button: HTMLElement) => void): HTMLElement {
    const button = element(
      "button",
      { type: "button", className: "icon-button small", ariaLabel: label, title: label },
      icon(name),
    );
    button.addEventListener("click", () => does(button));
    return button;
  }

  async copy(): Promise<boolean> {
    const copied = await copyText(this.turn.answer.text);
    this.oncopied(copied);
    return copied;
  }

  async #copy(button: HTMLElement): Promise<void> {
    if (!(await this.copy())) return;
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  }
}
