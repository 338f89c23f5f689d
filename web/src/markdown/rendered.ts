import { furnish } from "./code";
import { type Added, children, morph } from "./morph";
import { type Shape, whole } from "./render";
import { sanitize } from "./sanitize";
import type { References } from "./source";

/** What a heading is called in this page, and the address that leads to it. */
interface Name {
  id: string;
  href: string;
}

/** A block in the page: one element, of which an update changes only the parts that are not the same any more. */
export class RenderedBlock {
  element: HTMLElement | undefined;
  #name: Name | undefined;
  #frame = "";
  #keys: string[] = [];

  /** @param anew whether to make also those parts again that look the same: a link may lead elsewhere */
  update(shape: Shape, references: References, anew: boolean, added: Added): void {
    const frame = shape.frame?.key ?? "";
    const keys = shape.parts.map((part) => part.key);
    const inPlace = this.element && shape.frame && this.#frame === frame && !anew;
    const same = anew ? 0 : keys.findIndex((key, i) => key !== this.#keys[i]);
    const from = same < 0 ? keys.length : same;
    if (frame === this.#frame && from === keys.length && from === this.#keys.length) return;
    this.#frame = frame;
    this.#keys = keys;
    const first = inPlace ? from : 0;
    const made = this.#make(shape, references, first);
    if (!made) {
      this.remove();
      return;
    }
    if (this.element && inPlace)
      children(slot(this.element), [...slot(made).childNodes], first, added);
    else if (this.element) this.element = morph(this.element, made, added) as HTMLElement;
    else this.element = made;
  }

  /** Gives a heading its id, and a link to itself. */
  name(name: Name): void {
    this.#name = name;
    if (this.element) anchor(this.element, name);
  }

  remove(): void {
    this.element?.remove();
    this.element = undefined;
  }

  #make(shape: Shape, references: References, from: number): HTMLElement | undefined {
    const fragment = sanitize(whole(shape, references, from));
    furnish(fragment);
    const made = fragment.firstElementChild;
    if (!(made instanceof HTMLElement)) return undefined;
    if (this.#name) anchor(made, this.#name);
    return made;
  }
}

/** Where the parts of a block are. */
function slot(element: Element): Element {
  return element.querySelector(":scope > table > tbody, :scope > pre > code") ?? element;
}

function anchor(heading: HTMLElement, { id, href }: Name): void {
  const link = document.createElement("a");
  link.href = href;
  link.className = "anchor";
  link.ariaLabel = `Link to “${heading.textContent}”`;
  heading.id = id;
  heading.append(link);
}
