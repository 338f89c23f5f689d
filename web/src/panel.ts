import { element, setText } from "./element";
import { median, variance } from "./figures";
import { type Icon, icon } from "./icons";
import { LocalRunView } from "./local-run-view";
import type { MarkdownView } from "./markdown";
import { Sparkline } from "./sparkline";
import type { Turn } from "./turn";
import { duration, size, whole } from "./wording";

/** From how many headings on an answer gets a table of contents. */
const CONTENTS_MIN = 3;
/** How often at most the figures change, in ms: nobody reads faster, and each time is a layout. */
const DRAW_MS = 250;
const NONE = "–";

/** What is happening to the last answer, and what can be done to it. */
export class Panel {
  onclose = (): void => {};
  onkill = (): void => {};
  onheading = (_id: string): void => {};
  readonly #figures = element("dl", { className: "figures" });
  readonly #sparkline = new Sparkline();
  readonly #caption = element("p", { className: "small" });
  readonly #contents = element("nav", {
    className: "contents",
    ariaLabel: "Contents",
    hidden: true,
  });
  readonly #list = element("ol");
  readonly #cut = this.#button("cut", "Cut the connection", () => this.#turn?.answer.cut());
  readonly #poll = this.#button("poll", "Force polling", () => this.#force());
  readonly #kill = this.#button("skull", "Kill the producer", () => this.onkill());
  readonly #close = element(
    "button",
    { type: "button", className: "icon-button", ariaLabel: "Close what is happening" },
    icon("close"),
  );
  readonly #run: LocalRunView | undefined;
  readonly #drawn = new Map<string, HTMLElement>();
  #turn: Turn | undefined;
  #forced = false;
  #headings: MarkdownView["headings"] = [];
  #due: ReturnType<typeof setTimeout> | undefined;

  constructor(host: HTMLElement, local: boolean) {
    this.#poll.ariaPressed = "false";
    this.#kill.hidden = !local;
    this.#run = local ? new LocalRunView() : undefined;
    this.#close.addEventListener("click", () => this.onclose());
    host.append(
      element("header", {}, element("h2", { textContent: "What is happening" }), this.#close),
      this.#figures,
      element("div", { className: "gaps" }, this.#sparkline.node, this.#caption),
      element("h3", { textContent: "Try the failures" }),
      element("div", { className: "failures" }, this.#cut, this.#poll, this.#kill),
      element("p", {
        className: "small",
        textContent: "Whatever you do here, the text stays whole: each piece comes once, in order.",
      }),
      ...(this.#run ? [this.#run.node] : []),
      this.#contents,
    );
    this.#contents.append(element("h3", { textContent: "In this answer" }), this.#list);
    this.#draw();
  }

  /** Show this turn's figures. */
  show(turn: Turn | undefined): void {
    if (turn !== this.#turn && turn && this.#forced) turn.answer.usePolling(true);
    this.#turn = turn;
    this.#draw();
  }

  /** More of the answer came: its figures are shown anew soon. */
  came(): void {
    this.#due ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  /** An answer has ended. */
  ended(): void {
    void this.#run?.refresh();
  }

  contents(markdown: MarkdownView | undefined): void {
    const headings = markdown?.headings ?? [];
    if (headings === this.#headings && headings.length === this.#list.childElementCount) return;
    // A long answer has many: only those that are new are made.
    if (headings !== this.#headings) this.#list.replaceChildren();
    this.#headings = headings;
    this.#contents.hidden = headings.length < CONTENTS_MIN;
    const top = Math.min(...headings.map(({ level }) => level));
    for (const { id, text, level } of headings.slice(this.#list.childElementCount)) {
      const link = element("button", { type: "button", textContent: text, dir: "auto" });
      link.addEventListener("click", () => this.onheading(id));
      this.#list.append(element("li", { className: `level-${Math.min(level - top, 2)}` }, link));
    }
  }

  #force(): void {
    this.#forced = !this.#forced;
    this.#turn?.answer.usePolling(this.#forced);
    this.#poll.ariaPressed = String(this.#forced);
  }

  #draw(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    const turn = this.#turn;
    const figures = turn?.figures;
    const gaps = figures?.gaps ?? [];
    const spread = variance(gaps);
    const first = turn?.asked ? figures?.firstTokenMs : undefined;
    const rate = figures?.tokensPerSecond;
    const middle = median(gaps);
    this.#figure("First token", first === undefined ? NONE : duration(first));
    this.#figure("Tokens a second", rate === undefined ? NONE : `≈ ${whole(rate)}`);
    this.#figure("Gap, median", middle === undefined ? NONE : duration(middle));
    this.#figure("Gap, variance", spread === undefined ? NONE : `${whole(spread)} ms²`);
    this.#figure("Chunks", figures ? whole(figures.chunks) : NONE);
    this.#figure("Text", figures ? size(figures.bytes) : NONE);
    this.#figure("Transport", turn?.answer.transport ?? NONE);
    this.#figure("Producer", figures?.epoch === undefined ? NONE : `epoch ${figures.epoch}`);
    this.#figure("Reconnects", figures ? whole(figures.reconnects) : NONE);
    this.#figure("Offset", turn && turn.answer.after >= 0 ? `seq ${turn.answer.after}` : NONE);
    const shown = figures?.shown ?? [];
    const longest = Math.max(...shown, 0);
    this.#sparkline.show(shown);
    const said = longest ? `, the longest ${duration(longest)}` : "";
    setText(this.#caption, `Gaps between chunks${said}`);
    const here = turn?.running && turn.id !== undefined;
    this.#cut.disabled = !here;
    this.#kill.disabled = !here;
  }

  #figure(name: string, value: string): void {
    let shown = this.#drawn.get(name);
    if (!shown) {
      shown = element("dd");
      this.#drawn.set(name, shown);
      this.#figures.append(element("div", {}, element("dt", { textContent: name }), shown));
    }
    setText(shown, value);
  }

  #button(name: Icon, label: string, does: () => void): HTMLButtonElement {
    const button = element("button", { type: "button", className: "button" }, icon(name), label);
    button.addEventListener("click", does);
    return button;
  }
}
