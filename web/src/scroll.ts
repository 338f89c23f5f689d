import { setText } from "./element";
import { icon } from "./icons";
import { several } from "./wording";

/** How far from the end still counts as being there, in px. */
const AT_END = 40;

/** Keeps the end in sight while the reader is there, and leaves the page alone while not. */
export class ReadingPlace {
  readonly #label = document.createTextNode("");
  #following = true;
  #words = 0;
  #top = 0;

  constructor(
    private readonly scroller: HTMLElement,
    private readonly content: HTMLElement,
    private readonly jump: HTMLButtonElement,
  ) {
    // What scrolls can be reached by the keyboard, in every browser.
    scroller.tabIndex = 0;
    scroller.addEventListener("scroll", () => this.#moved(), { passive: true });
    new ResizeObserver(() => this.#grew()).observe(content);
    new ResizeObserver(() => this.#grew()).observe(scroller);
    jump.append(icon("arrowDown"), this.#label);
    jump.addEventListener("click", () => this.toEnd());
  }

  /** New text came, with so many words; they are told when the page has grown by them. */
  came(words: number): void {
    if (!this.#following) this.#words += words;
  }

  toEnd(): void {
    this.#follow(true);
    this.#grew();
  }

  /** Go to a place within the content, and stay there. */
  to(target: Element): void {
    this.#follow(false);
    target.scrollIntoView({ block: "start" });
  }

  #moved(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const up = scrollTop < this.#top - 1;
    this.#top = scrollTop;
    // Growth also fires scroll events, but only a reader goes up.
    if (scrollHeight - scrollTop - clientHeight < AT_END) this.#follow(true);
    else if (up) this.#follow(false);
  }

  #grew(): void {
    // What stands there instead of turns is read from its beginning.
    const end = this.content.hasChildNodes() ? this.scroller.scrollHeight : 0;
    if (this.#following) this.scroller.scrollTop = end;
    else this.#show();
  }

  #follow(following: boolean): void {
    this.#following = following;
    if (following) this.#words = 0;
    // The browser's own anchoring holds the reader's place; at the end it would fight with ours.
    this.scroller.classList.toggle("following", following);
    this.#show();
  }

  #show(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.jump.hidden = this.#following || scrollHeight - scrollTop - clientHeight < AT_END;
    const fresh = this.#words ? ` · ${several(this.#words, "new word")}` : "";
    setText(this.#label, `Jump to latest${fresh}`);
  }
}
