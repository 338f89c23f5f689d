import type { StateInline, Token } from "markdown-it";

// What is half written shows what it is about to become: nothing of this runs once a block is complete.

// A mark that has been open for longer than this is one that was meant literally.
const REACH = 500;

/**
 * The text without its last line, where that cannot be shown calmly yet: it is nothing but marks, which the next
 * characters may turn into a list, a rule, a heading, emphasis or a fence, or it is a fence's unfinished first line.
 */
export function withoutLooseLine(text: string): string {
  const start = text.lastIndexOf("\n") + 1;
  const line = text.slice(start, start + REACH);
  const marks = /^[\s>]*(?:[-+*=_#~`:]+|\||\d{1,9}[.)]?)?[ \t]*$/;
  const fence = /^[\s>]*(?:(?:[-+*]|\d{1,9}[.)])[ \t]+)*(?:`{3,}[^`]*|~{3,}.*)$/;
  return line.length < REACH && (marks.test(line) || fence.test(line))
    ? text.slice(0, start)
    : text;
}

/** Inline text without marks at its end that nothing follows yet, and without what will be a table's head. */
export function withoutLooseEnds(content: string): string {
  return content.replace(/(^|\n)\|[^\n]*(?:\n[ \t|:-]*)?$/, "").replace(/(?:[*_~`\\]|!?\[)+$/, "");
}

/** An inline rule: code that is not closed is code up to the end. */
export function openCode(state: StateInline, silent: boolean): boolean {
  if (!near(state) || state.src[state.pos] !== "`") return false;
  const rest = state.src.slice(state.pos, state.posMax);
  const marks = /^`+/.exec(rest)?.[0] ?? "";
  const closed = (rest.slice(marks.length).match(/`+/g) ?? []).some((run) => run === marks);
  if (closed) return false;
  if (!silent) {
    const token = state.push("code_inline", "code", 0);
    token.markup = marks;
    token.content = rest
      .slice(marks.length)
      .replace(/^[ \n]/, "")
      .replaceAll("\n", " ");
  }
  state.pos = state.posMax;
  return true;
}

const LABEL = /^!?\[([^[\]\n]*)\]?$/;
const ADDRESS = /^!?\[([^[\]\n]*)\](\([ \t]*(?:<[^<>\n]*|[^\s<]*)(?:\s+(?:"[^"]*|'[^']*)?)?)$/;
const REFERENCE = /^!?\[([^[\]\n]*)\]\[[^[\]\n]*$/;

/** An inline rule: a link whose text or address is not complete is a link already, that leads nowhere. */
export function openLink(state: StateInline, silent: boolean): boolean {
  const first = state.src[state.pos];
  if (silent || !near(state) || state.linkLevel > 0 || (first !== "[" && first !== "!"))
    return false;
  const rest = state.src.slice(state.pos, state.posMax);
  const match = LABEL.exec(rest) ?? ADDRESS.exec(rest) ?? REFERENCE.exec(rest);
  if (!match || closes(match[2] ?? "(")) return false;
  const label = match[1] ?? "";
  // At the start of an item this is a box to tick, more often than not.
  if (label.trim() !== "" && !(state.pos === 0 && /^[xX]$/.test(label))) {
    state.push("link_open", "a", 1).attrs = [["href", ""]];
    for (const token of inside(label, state)) {
      state.tokens.push(token);
      state.tokens_meta.push(undefined);
    }
    state.push("link_close", "a", -1);
  }
  state.pos = state.posMax;
  return true;
}

/** The text of a link, in which no other link can be. */
function inside(label: string, { md, env }: StateInline): Token[] {
  const tokens: Token[] = [];
  md.inline.parse(label, md, env, tokens);
  return tokens.filter(({ tag }) => tag !== "a");
}

function closes(address: string): boolean {
  const count = (mark: string) => address.split(mark).length;
  return count(")") >= count("(");
}

/** A rule that runs once pairs of marks are found: emphasis that is still open closes at the end. */
export function closeEmphasis(state: StateInline): void {
  if (!state.env.unfinished) return;
  const { delimiters } = state;
  const open: number[] = [];
  let paired = -1;
  for (const [i, delimiter] of delimiters.entries()) {
    if (i <= paired) continue; // within a pair: to close it at the end would cross that pair
    if (delimiter.end >= 0) paired = delimiter.end;
    else if (delimiter.open) open.push(i);
  }
  const reach = reachable(state);
  for (const i of open.reverse()) {
    const opener = delimiters[i];
    if (!opener || opener.token < reach) break;
    const content = state.tokens[opener.token]?.content ?? "";
    state.push("text", "", 0).content = content;
    const closer = { ...opener, token: state.tokens.length - 1, open: false, close: true, end: -1 };
    opener.end = delimiters.push(closer) - 1;
  }
}

/** The first token of those that together make up what is near the end. */
function reachable(state: StateInline): number {
  let length = 0;
  let index = state.tokens.length;
  while (index > 0 && length <= REACH) length += state.tokens[--index]?.content.length ?? 0;
  return index;
}

function near(state: StateInline): boolean {
  return Boolean(state.env.unfinished) && state.posMax - state.pos <= REACH;
}
