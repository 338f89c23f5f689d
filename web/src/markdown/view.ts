import type { Block } from "./blocks";
import { copy } from "./code";
import { Cursor } from "./cursor";
import { Undefined } from "./definitions";
import { Fresh } from "./fresh";
import { type Added, tell } from "./morph";
import { Pace } from "./pace";
import { shape } from "./render";
import { RenderedBlock } from "./rendered";
import { Slugs } from "./slugs";
import { type Reading, Source } from "./source";

export interface Heading {
  level: number;
  text: string;
  id: string;
}

// Characters taken in a frame. What has been stored up, as a long answer at once, is shown over several.
const SLICE = 1000;

/**
 * Renders an answer's Markdown as it grows.
 *
 * Blocks that nothing can change any more keep their nodes, and are neither parsed nor touched again; of those behind
 * them only what changed is rendered anew. What is half written looks like what it will be. Once `finish` has been
 * called and all is shown, the page is the same as if the whole answer had been rendered at once.
 */
export class MarkdownView {
  /** Called after each render. */
  onchange?: () => void;
  readonly #host: HTMLElement;
  readonly #prefix: string;
  readonly #hrefOf: (slug: string) => string;
  readonly #pace = new Pace(() => this.#render());
  readonly #cursor = new Cursor();
  #text = "";
  #pending = "";
  #over = false;
  #source = new Source();
  #undefined = new Undefined();
  #slugs = new Slugs();
  #headings: Heading[] = [];
  #closed: Element | null = null; // the last one
  #open: RenderedBlock[] = [];
  #openReferences = "{}";

  /**
   * @param options.idPrefix stands before the id of each heading; one answer's should be no other's
   * @param options.hrefOf gives the address of a heading, by what is behind the prefix
   */
  constructor(host: HTMLElement, options: { idPrefix: string; hrefOf: (slug: string) => string }) {
    this.#host = host;
    this.#prefix = options.idPrefix;
    this.#hrefOf = options.hrefOf;
    host.classList.add("markdown");
    host.addEventListener("click", (event) => void copy(event.target));
    this.reset();
  }

  /** The headings so far of the top level that are complete. */
  get headings(): readonly Heading[] {
    return this.#headings;
  }

  /** Whether all that was appended is shown. */
  get settled(): boolean {
    return this.#pending === "";
  }

  /** Shows more of the answer with the next frame. An answer that was over is rendered anew. */
  append(text: string): void {
    if (this.#over) {
      this.reset(this.#text + text);
      return;
    }
    this.#text += text;
    this.#pending += text;
    this.#pace.request();
  }

  /** The answer is over. Shows what is left now, or over the next frames where that is long. */
  finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#pace.cancel();
    this.#render();
  }

  /** Starts anew, with the text of an answer that is known already. */
  reset(text = ""): void {
    this.#pace.cancel();
    this.#text = this.#pending = "";
    this.#over = false;
    this.#source = new Source();
    this.#undefined = new Undefined();
    this.#slugs = new Slugs();
    this.#headings = [];
    this.#closed = null;
    this.#open = [];
    this.#openReferences = "{}";
    this.#host.replaceChildren();
    this.#cursor.show(this.#host);
    if (text) this.append(text);
  }

  #render(): void {
    this.#source.append(this.#pending.slice(0, SLICE));
    this.#pending = this.#pending.slice(SLICE);
    const over = this.#over && this.#pending === "";
    this.#cursor.hide();
    this.#show(this.#source.read(over));
    if (!over) this.#cursor.show(this.#host);
    if (this.#pending) this.#pace.request();
    this.onchange?.();
  }

  #show(reading: Reading): void {
    // Links may lead elsewhere now: in what was open until now and used a definition that was open itself, too.
    const before = this.#openReferences;
    this.#openReferences = JSON.stringify(reading.openReferences);
    const anew = before !== this.#openReferences || reading.defined.length > 0;

    const fresh = new Fresh();
    const added: Added = (node, start) => fresh.add(node, start);
    for (const { block, rendered } of this.#undefined.take(reading.defined)) {
      rendered.update(shape(block, false), reading.references, true, () => {});
    }
    const were = this.#open;
    this.#open = [];
    for (const block of reading.closed) {
      const rendered = were.shift() ?? new RenderedBlock();
      rendered.update(shape(block, false), reading.references, anew || before !== "{}", added);
      this.#closed = this.#place(rendered, this.#closed, added);
      this.#close(block, rendered, reading);
    }
    let last = this.#closed;
    for (const [i, block] of reading.open.entries()) {
      const rendered = were.shift() ?? new RenderedBlock();
      const writing = i === reading.open.length - 1;
      rendered.update(shape(block, writing), reading.openReferences, anew, added);
      last = this.#place(rendered, last, added);
      this.#open.push(rendered);
    }
    for (const rendered of were) rendered.remove();
    fresh.mark();
  }

  /** Puts a block that is not in the page yet behind `last`; returns the last one now. */
  #place({ element }: RenderedBlock, last: Element | null, added: Added): Element | null {
    if (!element) return last;
    if (element.parentNode !== this.#host) {
      if (last) last.after(element);
      else this.#host.prepend(element);
      tell(element, added);
    }
    return element;
  }

  #close(block: Block, rendered: RenderedBlock, reading: Reading): void {
    this.#undefined.add(block, rendered, reading.references);
    if (block.type !== "heading" || !rendered.element) return;
    const text = rendered.element.textContent.trim();
    const slug = this.#slugs.take(text);
    const id = this.#prefix + slug;
    rendered.name({ id, href: this.#hrefOf(slug) });
    this.#headings.push({ level: Number(rendered.element.tagName.slice(1)), text, id });
  }
}
