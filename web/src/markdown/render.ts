import type { RendererRule, Token } from "markdown-it";
import { type Block, groups } from "./blocks";
import { highlight } from "./highlight";
import { markdown, parseContent, pieces, type Scope } from "./parser";

type References = Scope["references"];

/** How a block is shown: a frame with parts in it (items, rows, lines), or one part that stands alone. */
export interface Shape {
  frame: Frame | undefined;
  /** Each becomes one element. The key is the same for the same content. */
  parts: Part[];
}

/** HTML around the parts, which go into the last element that it opens. */
export interface Frame {
  key: string;
  open(references: References): string;
  close: string;
}

/** HTML of the whole block. */
export function whole({ frame, parts }: Shape, references: References, from = 0): string {
  const inside = parts.slice(from).map((part) => part.html(references));
  return (frame?.open(references) ?? "") + inside.join("") + (frame?.close ?? "");
}

export interface Part {
  key: string;
  html(references: References): string;
}

// Lines of code in a part: only the last part of a code that grows is laid out again.
const LINES = 100;
// Longer code stays plain: to highlight it would take too long.
const HIGHLIGHTED = 20_000;

const { rules } = markdown.renderer;
for (const name of ["paragraph_open", "heading_open"]) rules[name] = directed;
rules.list_item_open = item;
rules.th_open = rules.td_open = cell;
rules.image = image;
rules.fence = rules.code_block = code;

/** @param writing whether the block is the one that is still being written */
export function shape(block: Block, writing: boolean): Shape {
  const { type, tokens } = block;
  const inner = tokens.slice(1, -1);
  switch (type) {
    case "definition":
      return { frame: undefined, parts: [] };
    case "list":
    case "quote":
      return {
        frame: frame(tokens.slice(0, 1), `</${tokens[0]?.tag}>`),
        parts: parts(inner, writing),
      };
    case "table":
      return table(tokens, writing);
    case "paragraph":
      return paragraph(tokens, writing);
    case "fence":
    case "code":
      return lines(tokens, writing);
    default:
      return { frame: undefined, parts: [part(tokens, writing)] };
  }
}

function frame(open: Token[], close: string, inside = ""): Frame {
  return {
    key: open.map(signature).join("\0"),
    open: (references) => html(parseContent(open, { references }), {}).trim() + inside,
    close,
  };
}

function parts(tokens: Token[], writing: boolean): Part[] {
  const found = groups(tokens).filter(([first]) => first?.type !== "reference_definition");
  return found.map((group, i) => part(group, writing && i === found.length - 1));
}

function part(tokens: Token[], writing: boolean): Part {
  return {
    key: `${writing}\0${tokens.map(signature).join("\0")}`,
    html: (references) => {
      const scope = { references, open: writing ? unfinished(tokens) : undefined, writing };
      return html(parseContent(tokens, scope), scope).trim();
    },
  };
}

function signature(token: Token): string {
  const { type, tag, hidden, info, attrs, content } = token;
  return [type, tag, hidden, info, attrs?.join() ?? "", content].join("\0");
}

/** The inline token at the very end. */
function unfinished(tokens: Token[]): Token | undefined {
  const last = tokens
    .filter((token) => (token.type === "inline" ? token.content : token.nesting === 0))
    .at(-1);
  return last?.type === "inline" ? last : undefined;
}

function table(tokens: Token[], writing: boolean): Shape {
  const head = tokens.findIndex((token) => token.type === "thead_close") + 1;
  const body = tokens.slice(head + 1, -2);
  const around = frame(tokens.slice(0, head), "</tbody></table>", "<tbody>");
  return { frame: around, parts: parts(body, writing) };
}

function paragraph(tokens: Token[], writing: boolean): Shape {
  const [open, inline, close] = tokens;
  if (!open || !inline || !close) throw new Error("a paragraph is three tokens");
  const texts = pieces(inline.content);
  if (texts.length === 1) return { frame: undefined, parts: [part(tokens, writing)] };
  const split = texts.flatMap((content) => {
    return [open, Object.assign(Object.create(inline), { content: content.trim() }), close];
  });
  return {
    frame: { key: "long", open: () => "<div>", close: "</div>" },
    parts: parts(split, writing),
  };
}

function lines(tokens: Token[], writing: boolean): Shape {
  const [token] = tokens;
  if (!token) throw new Error("code is one token");
  const { open, close, text, language } = codeOf(token);
  const colours = writing || text.length > HIGHLIGHTED ? undefined : highlight(text, language);
  const texts = colours === undefined ? (text.match(TAKE_LINES) ?? []) : [];
  const plain = texts.map((text) => {
    return { key: text, html: () => `<span>${markdown.utils.escapeHtml(text)}</span>` };
  });
  const coloured = { key: `\0${text}`, html: () => `<span>${colours}</span>` };
  return {
    frame: { key: open, open: () => open, close },
    parts: colours === undefined ? plain : [coloured],
  };
}

const TAKE_LINES = new RegExp(`(?:[^\\n]*\\n){1,${LINES}}|[^\\n]+$`, "g");

function codeOf(token: Token): { open: string; close: string; text: string; language: string } {
  const info = markdown.utils.unescapeAll(token.info).trim();
  const language = /^[\w+#.-]{1,30}(?=$|[\s,{:])/.exec(info)?.[0] ?? "";
  const open = `<pre dir="ltr" data-language="${language}"><code dir="ltr">`;
  return { open, close: "</code></pre>", text: token.content, language };
}

function html(tokens: Token[], scope: object): string {
  return markdown.renderer.render(tokens, markdown.options, { ...scope });
}

function directed(...[tokens, i, options, , renderer]: Parameters<RendererRule>): string {
  tokens[i]?.attrSet("dir", "auto");
  return renderer.renderToken(tokens, i, options);
}

function item(...[tokens, i, options, , renderer]: Parameters<RendererRule>): string {
  const token = tokens[i];
  token?.attrSet("dir", "auto");
  if (token?.meta?.task) token.attrSet("data-task", String(token.meta.task));
  return renderer.renderToken(tokens, i, options);
}

function cell(...[tokens, i, , , renderer]: Parameters<RendererRule>): string {
  const token = tokens[i];
  const align = /\w+$/.exec(String(token?.attrGet("style") ?? ""))?.[0];
  const attrs: Token["attrs"] = [
    ["dir", "auto"],
    ...(align ? [["data-align", align] as [string, string]] : []),
  ];
  return `<${token?.tag}${renderer.renderAttrs({ attrs })}>`;
}

/** An image is never loaded: it is a link that says what it shows. */
function image(...[tokens, i, options, env, renderer]: Parameters<RendererRule>): string {
  const token = tokens[i];
  const text = renderer.renderInlineAsText(token?.children ?? [], options, env) || "image";
  const shown = markdown.utils.escapeHtml(text);
  const depth = tokens
    .slice(0, i)
    .reduce((sum, { tag, nesting }) => sum + (tag === "a" ? nesting : 0), 0);
  const attrs: Token["attrs"] = [["href", String(token?.attrGet("src") ?? "")]];
  return depth > 0 ? shown : `<a${renderer.renderAttrs({ attrs })}>${shown}</a>`;
}

function code(...[tokens, i, , env]: Parameters<RendererRule>): string {
  const token = tokens[i];
  if (!token) return "";
  const { open, close, text, language } = codeOf(token);
  const colours = env?.writing || text.length > HIGHLIGHTED ? undefined : highlight(text, language);
  return `${open}<span>${colours ?? markdown.utils.escapeHtml(text)}</span>${close}\n`;
}
