import type { Token } from "markdown-it";

/** A block of the top level, its tokens as the block parser left them. */
export interface Block {
  type:
    | "paragraph"
    | "heading"
    | "list"
    | "table"
    | "quote"
    | "fence"
    | "code"
    | "hr"
    | "definition";
  /** The lines that it takes, the second excluded, counted from the start of the text that was parsed. */
  start: number;
  end: number;
  tokens: Token[];
}

const TYPES: Record<string, Block["type"]> = {
  paragraph_open: "paragraph",
  heading_open: "heading",
  bullet_list_open: "list",
  ordered_list_open: "list",
  table_open: "table",
  blockquote_open: "quote",
  fence: "fence",
  code_block: "code",
  hr: "hr",
  reference_definition: "definition",
};

export function split(tokens: Token[]): Block[] {
  return groups(tokens).map((group) => {
    const [first] = group;
    const type = TYPES[first?.type ?? ""];
    if (!first?.map || !type)
      throw new Error(`a block of a kind that is not known: ${first?.type}`);
    const [start, end] = first.map;
    return { type, start, end, tokens: group };
  });
}

/** These tokens in groups, each from one that opens to the one that closes it. */
export function groups(tokens: Token[]): Token[][] {
  const found: Token[][] = [];
  let depth = 0;
  let start = 0;
  for (const [i, token] of tokens.entries()) {
    depth += token.nesting;
    if (depth > 0) continue;
    found.push(tokens.slice(start, i + 1));
    start = i + 1;
  }
  return found;
}
