import MarkdownIt, { type Env, type StateCore, type Token } from "markdown-it";
import { closeEmphasis, openCode, openLink, withoutLooseEnds } from "./unfinished";

/** What inline parsing needs to know. `open` is the one inline token that is still being written. */
export interface Scope extends Env {
  references: Record<string, { title: string; href: string }>;
  open?: Token | undefined;
}

// Inline parsing takes time in the square of what it is given, at worst. Nobody writes paragraphs this long:
// they are parsed in pieces, and a mark that opens in one piece does not close in the next.
const PIECE = 4000;

export const markdown = new MarkdownIt({ html: false, linkify: true });
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
// An empty address makes a link that leads nowhere: one whose address has yet to come.
markdown.validateLink = (url) => url === "" || /^(?:https?:\/\/|mailto:)./i.test(url);
// Blocks come from `markdown.block`, so that only those that changed go through what follows.
markdown.core.ruler.disable(["normalize", "block"]);
markdown.core.ruler.at("inline", parseInline);
markdown.inline.ruler.before("backticks", "open_code", openCode);
markdown.inline.ruler.before("link", "open_link", openLink);
markdown.inline.ruler2.after("balance_pairs", "close_emphasis", closeEmphasis);

/** The text in pieces of bounded length, cut at white space where there is any. */
export function pieces(text: string): string[] {
  const found: string[] = [];
  let start = 0;
  while (text.length - start > PIECE) {
    const space = Math.max(
      text.lastIndexOf(" ", start + PIECE),
      text.lastIndexOf("\n", start + PIECE),
    );
    const end = space > start + PIECE / 2 ? space + 1 : start + PIECE;
    found.push(text.slice(start, end));
    start = end;
  }
  found.push(text.slice(start));
  return found;
}

// A box to tick at the start of an item, as GitHub has it.
const BOX = /^\[([ xX])\](?:[ \t]+|$)/;

/** The item's text without the box at its start, which the item is given. An open item may be no more than that. */
function withoutBox(tokens: Token[], at: number, text: string, open: boolean): string {
  const item = tokens[at - 1]?.type === "paragraph_open" ? tokens[at - 2] : undefined;
  const bullet = item?.type === "list_item_open" && /^[-+*]$/.test(item.markup);
  const box = bullet ? BOX.exec(text) : null;
  if (!item || !box || (box[0] === text && !open)) return text;
  item.meta = { task: box[1] === " " ? "open" : "done" };
  return text.slice(box[0].length);
}

function parseInline(state: StateCore): void {
  const scope = state.env as Scope;
  for (const [at, token] of state.tokens.entries()) {
    if (token.type !== "inline") continue;
    const open = token === scope.open;
    const shown = open ? withoutLooseEnds(token.content) : token.content;
    const parts = pieces(withoutBox(state.tokens, at, shown, open));
    token.children = [];
    for (const [i, part] of parts.entries()) {
      const children: Token[] = [];
      const env = { references: scope.references, unfinished: open && i === parts.length - 1 };
      state.md.inline.parse(part, state.md, env, children);
      token.children.push(...children);
    }
  }
}

/** The blocks of a text, their inline content not parsed yet. Definitions of links go to `scope`. */
export function parseBlocks(text: string, scope: Scope): Token[] {
  const tokens: Token[] = [];
  markdown.block.parse(text, markdown, scope, tokens);
  return tokens;
}

/** Parses the inline content of these blocks, anew where it has been parsed before. */
export function parseContent(tokens: Token[], scope: Scope): Token[] {
  const state = new markdown.core.State("", markdown, scope);
  state.tokens = tokens.slice();
  markdown.core.process(state);
  return state.tokens;
}
