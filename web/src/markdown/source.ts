import type { Token } from "markdown-it";
import { type Block, split } from "./blocks";
import { parseBlocks, type Scope } from "./parser";
import { withoutLooseLine } from "./unfinished";

export type References = Scope["references"];

/** What a reading found: blocks that are new, or may have changed, since the last one. */
export interface Reading {
  /** Blocks that nothing can change any more, each told once. `references` are those that they may use. */
  closed: Block[];
  references: References;
  /** Blocks that the next characters may change, and the definitions of links among them included. */
  open: Block[];
  openReferences: References;
  /** Labels of links defined for good since the last reading. */
  defined: string[];
}

/** The source of an answer as it grows. Keeps, and parses anew, only what is behind the last closed block. */
export class Source {
  #tail = "";
  readonly #references: References = Object.create(null);

  append(text: string): void {
    const joined = this.#tail + text;
    // A "\r" at the end may be half a line's end.
    const from = this.#tail.endsWith("\r") ? this.#tail.length - 1 : this.#tail.length;
    this.#tail = joined.slice(0, from) + normal(joined.slice(from));
  }

  /** @param over whether nothing will follow: all blocks are closed then. */
  read(over: boolean): Reading {
    const text = over ? normal(this.#tail, true) : withoutLooseLine(this.#tail.replace(/\r$/, ""));
    const openReferences: References = Object.create(this.#references);
    const blocks = split(parseBlocks(text, { references: openReferences }));
    const count = over ? blocks.length : closedCount(blocks, text);
    const closed = blocks.slice(0, count);
    const defined = closed.flatMap(definitions).filter((label) => !(label in this.#references));
    for (const label of defined) {
      const reference = openReferences[label];
      if (reference) this.#references[label] = reference;
      delete openReferences[label];
    }
    if (count > 0) {
      const line = blocks[count]?.start ?? blocks[count - 1]?.end ?? 0;
      this.#tail = over ? "" : this.#tail.slice(offset(text, line));
    }
    return {
      closed,
      references: this.#references,
      open: blocks.slice(count),
      openReferences,
      defined,
    };
  }
}

function normal(text: string, whole = false): string {
  return text.replace(whole ? /\r\n?/g : /\r\n|\r(?!$)/g, "\n").replaceAll("\0", "\ufffd");
}

function definitions(block: Block): string[] {
  return block.tokens.filter((t) => t.type === "reference_definition").map(labelOf);
}

function labelOf(token: Token): string {
  return String(token.meta?.label);
}

/** How many of these blocks are the same whatever follows. */
function closedCount(blocks: Block[], text: string): number {
  const lines = text.split("\n");
  const complete = lines.length - 1;
  const open = blocks.findIndex((block, i) => !isClosed(block, blocks[i + 1], lines, complete));
  return open < 0 ? blocks.length : open;
}

function isClosed(
  block: Block,
  next: Block | undefined,
  lines: string[],
  complete: number,
): boolean {
  if (block.end > complete) return false;
  if (block.type === "heading" || block.type === "hr") return true;
  if (block.type === "fence") return endsFence(block, lines[block.end - 1] ?? "");
  const blank = block.end < complete && lines[block.end]?.trim() === "";
  const mayGoOn = block.type === "list" || block.type === "code";
  if (blank && !mayGoOn) return true;
  if (!next) return false;
  // A list or an indented code goes on behind blank lines, as the next line that is not blank tells. Without a blank
  // line between, the start of the next block may be a table, which takes two lines to tell; and a paragraph behind a
  // definition may turn out to be its title.
  if (lines[next.start - 1]?.trim() === "") return next.start + 1 <= complete;
  return next.start + 2 <= complete && next.type !== "paragraph";
}

function endsFence(block: Block, line: string): boolean {
  const fence = block.tokens[0]?.markup ?? "";
  const mark = line.trim();
  return (
    block.end - block.start > 1 &&
    /^ {0,3}[^ ]/.test(line) &&
    mark.length >= fence.length &&
    mark === (fence[0] ?? "").repeat(mark.length)
  );
}

function offset(text: string, line: number): number {
  let at = 0;
  for (let i = 0; i < line; i++) {
    const end = text.indexOf("\n", at);
    if (end < 0) return text.length;
    at = end + 1;
  }
  return at;
}
