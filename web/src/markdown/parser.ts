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

function parseInline(state: StateCore): void {
  const scope = state.env as Scope;
  for (const token of state.tokens) {
    if (token.type !== "inline") continue;
    const open = token === scope.open;
    const parts = pieces(open ? withoutLooseEnds(token.content) : token.content);
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
