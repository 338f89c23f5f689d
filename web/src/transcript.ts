import { arrange, element, part } from "./element";
import type { Example } from "./examples";
import { ReadingPlace } from "./scroll";
import type { Turn } from "./turn";
import { TurnView } from "./turn-view";
import { words } from "./wording";

/** The turns on the page, and the reader's place in them. */
export class Transcript {
  /** After the last answer was rendered anew. */
  onrender = (_view: TurnView): void => {};
  /** A heading's own link, or its entry in the contents. */
  onheading = (_view: TurnView, _id: string): void => {};
  onexample = (_question: string, _model: string): void => {};
  oncopied = (_copied: boolean): void => {};
  onregenerate = (): void => {};
  onchoose = (_sibling: Turn): void => {};
  readonly #host = part("turns");
  readonly #empty = part("empty");
  readonly #place = new ReadingPlace(part("scroller"), this.#host, part<HTMLButtonElement>("jump"));
  /** Kept while its turn may be shown again. */
  readonly #views = new Map<Turn, TurnView>();
  #turns: readonly Turn[] = [];

  constructor(examples: readonly Example[]) {
    this.#host.addEventListener("click", (event) => this.#onlink(event));
    part("examples").replaceChildren(
      ...examples.map(({ title, text, model }) => {
        const button = element(
          "button",
          { type: "button", className: "example" },
          element("strong", { textContent: title }),
          element("span", { textContent: text }),
        );
        button.addEventListener("click", () => this.onexample(text, model));
        return element("li", {}, button);
      }),
    );
  }

  #onlink(event: MouseEvent): void {
    // Another tab or window is the browser's to open.
    if (!(event.target instanceof Element) || event.ctrlKey || event.metaKey || event.shiftKey)
      return;
    const heading = event.target.closest("a.anchor")?.closest("[id]");
    const view = [...this.#views.values()].find(({ node }) => node.contains(heading ?? null));
    if (!view || !heading) return;
    event.preventDefault();
    this.onheading(view, heading.id);
  }

  get last(): TurnView | undefined {
    const turn = this.#turns.at(-1);
    return turn && this.#views.get(turn);
  }

  show(turns: readonly Turn[]): void {
    const asked = turns.at(-1) !== this.#turns.at(-1);
    this.#turns = turns;
    const kept = new Set(turns.flatMap(({ siblings }) => siblings));
    for (const turn of this.#views.keys()) if (!kept.has(turn)) this.#views.delete(turn);
    const views = turns.map((turn) => this.#of(turn));
    arrange(
      this.#host,
      views.map(({ node }) => node),
    );
    for (const view of views) view.last = view === views.at(-1);
    this.#empty.hidden = turns.length > 0;
    if (asked) this.#place.toEnd();
  }

  /** More of an answer came. */
  came(text: string): void {
    this.#place.came(words(text));
  }

  toEnd(): void {
    this.#place.toEnd();
  }

  toElement(id: string): void {
    const target = document.getElementById(id);
    if (target) this.#place.to(target);
  }

  #of(turn: Turn): TurnView {
    const known = this.#views.get(turn);
    if (known) return known;
    const view = new TurnView(turn);
    view.onrender = () => view === this.last && this.onrender(view);
    view.oncopied = (copied) => this.oncopied(copied);
    view.onregenerate = () => this.onregenerate();
    view.onchoose = (sibling) => this.onchoose(sibling);
    this.#views.set(turn, view);
    return view;
  }
}
