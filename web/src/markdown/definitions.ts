import type { Block } from "./blocks";
import { markdown } from "./parser";
import type { RenderedBlock } from "./rendered";
import type { References } from "./source";

interface Waiting {
  block: Block;
  rendered: RenderedBlock;
}

/** Closed blocks with text in brackets that is a link as soon as its label is defined further down. */
export class Undefined {
  readonly #waiting = new Map<string, Waiting[]>();

  add(block: Block, rendered: RenderedBlock, references: References): void {
    for (const label of labels(block)) {
      if (label in references) continue;
      const waiting = this.#waiting.get(label);
      if (waiting) waiting.push({ block, rendered });
      else this.#waiting.set(label, [{ block, rendered }]);
    }
  }

  /** Those that waited for one of these labels, which wait no more. */
  take(defined: string[]): Set<Waiting> {
    const found = new Set(defined.flatMap((label) => this.#waiting.get(label) ?? []));
    for (const label of defined) this.#waiting.delete(label);
    return found;
  }
}

function labels(block: Block): Set<string> {
  const found = new Set<string>();
  for (const { type, content } of block.tokens) {
    if (type !== "inline") continue;
    for (const [, label = ""] of content.matchAll(/\[((?:[^[\]\\]|\\.){1,999})\]/gs)) {
      found.add(markdown.utils.normalizeReference(label));
    }
  }
  return found;
}
