const BLOCKS =
  "blockquote, div, h1, h2, h3, h4, h5, h6, li, ol, p, pre, table, tbody, td, th, thead, tr, ul, pre > code, pre > code > span";

/** The mark at the end of an answer that is still being written. */
export class Cursor {
  readonly #element = document.createElement("span");

  constructor() {
    this.#element.className = "cursor";
    this.#element.ariaHidden = "true";
  }

  show(host: Element): void {
    let at = host;
    for (let last: Element | undefined = at; last; last = lastBlock(at)) at = last;
    // A heading's link to itself takes room, and is mostly not seen.
    const anchor = at.querySelector(":scope > .anchor");
    if (anchor) anchor.before(this.#element);
    else at.append(this.#element);
  }

  hide(): void {
    this.#element.remove();
  }
}

function lastBlock(element: Element): Element | undefined {
  // The cells of a row are all there from the start: the last one that has text is being written.
  const row = element.tagName === "TR";
  let at = element.lastElementChild;
  while (at && !(at.matches(BLOCKS) && (!row || at.textContent))) at = at.previousElementSibling;
  return at ?? undefined;
}
