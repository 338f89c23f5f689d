import assert from "node:assert/strict";
import { describe, test } from "node:test";
import MarkdownIt from "markdown-it";
import { type Block, split } from "../../web/src/markdown/blocks";
import { parseBlocks, pieces, type Scope } from "../../web/src/markdown/parser";
import { whole as render, shape } from "../../web/src/markdown/render";
import { Slugs } from "../../web/src/markdown/slugs";
import { Source } from "../../web/src/markdown/source";
import { withoutLooseEnds, withoutLooseLine } from "../../web/src/markdown/unfinished";
import { ANSWERS, LINES } from "./markdown.corpus";

type References = Scope["references"];

const html = (block: Block, references: References) => render(shape(block, false), references);

function whole(text: string): string[] {
  const references: References = Object.create(null);
  const blocks = split(
    parseBlocks(text.replace(/\r\n?/g, "\n").replaceAll("\0", "\ufffd"), { references }),
  );
  return blocks.map((block) => html(block, references)).filter(Boolean);
}

/** What the closed blocks are once all these pieces have come, with the definitions that came by then. */
function streamed(parts: string[]): string[] {
  const source = new Source();
  const closed: Block[] = [];
  let references: References = {};
  for (const part of parts) {
    source.append(part);
    const reading = source.read(false);
    for (const block of reading.open)
      for (const p of shape(block, true).parts) p.html(reading.openReferences);
    closed.push(...reading.closed);
  }
  const last = source.read(true);
  references = last.references;
  assert.deepEqual(last.open, []);
  return [...closed, ...last.closed].map((block) => html(block, references)).filter(Boolean);
}

/** Numbers in [0, 1), the same for the same seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function cut(text: string, next: () => number, mean: number): string[] {
  const parts: string[] = [];
  for (let at = 0; at < text.length; ) {
    const end = at + 1 + Math.floor(next() * mean * 2);
    parts.push(text.slice(at, end));
    at = end;
  }
  return parts;
}

describe("an answer in pieces becomes what it is in one", () => {
  for (const [i, text] of ANSWERS.entries()) {
    test(`answer ${i}, character by character and at random cuts`, () => {
      const expected = whole(text);
      const next = random(i + 1);
      if (text.length < 4000) assert.deepEqual(streamed([...text]), expected);
      for (let n = 0; n < 20; n++) {
        assert.deepEqual(streamed(cut(text, next, text.length < 4000 ? 2 + n : 200)), expected);
      }
    });
  }

  test("all answers behind each other", () => {
    const text = ANSWERS.filter((answer) => !answer.includes("never closed")).join("\n\n");
    const next = random(7);
    for (let n = 0; n < 5; n++) assert.deepEqual(streamed(cut(text, next, 40)), whole(text));
  });

  test("lines in any order", () => {
    const next = random(2026);
    for (let n = 0; n < 3000; n++) {
      const count = 2 + Math.floor(next() * 12);
      const lines = Array.from({ length: count }, () => LINES[Math.floor(next() * LINES.length)]);
      const text = lines.join("\n");
      assert.deepEqual(streamed(cut(text, next, 3)), whole(text), JSON.stringify(text));
    }
  });
});

test("a block is told once it is closed, and not parsed again", () => {
  const source = new Source();
  let longest = 0;
  for (let n = 0; n < 500; n++) {
    source.append(
      `## Section ${n}\nSome **text** of it.\n\n- one\n- two\n\n\`\`\`js\nf(${n})\n\`\`\`\n`,
    );
    const { open } = source.read(false);
    longest = Math.max(longest, open.length);
  }
  assert.ok(longest <= 2, `${longest} blocks are open`);
});

test("what is closed says so as soon as can be", () => {
  const closedBy = (text: string) => {
    const source = new Source();
    source.append(text);
    return source.read(false).closed.map((block) => block.type);
  };
  assert.deepEqual(closedBy("# Heading\n"), ["heading"]);
  assert.deepEqual(closedBy("# Heading"), []);
  assert.deepEqual(closedBy("```\ncode\n```\n"), ["fence"]);
  assert.deepEqual(closedBy("```\ncode\n```"), []);
  assert.deepEqual(closedBy("```\ncode\n"), []);
  assert.deepEqual(closedBy("text\n\n"), ["paragraph"]);
  assert.deepEqual(closedBy("text\n"), []);
  assert.deepEqual(closedBy("- item\n\n"), []);
  assert.deepEqual(closedBy("- item\n\ntext\n"), ["list"]);
  assert.deepEqual(closedBy("- item\n\n1"), []);
  assert.deepEqual(closedBy("text\na | b\n--|--"), []); // "--|--x" makes no table, and all of it is text
  assert.deepEqual(closedBy("text\na | b\n--|--\n"), ["paragraph"]);
});

test("a definition reaches back to what is closed, and a half written one does not", () => {
  const source = new Source();
  source.append("[a]\n\n");
  assert.deepEqual(source.read(false).defined, []);
  source.append("[a]: https://example.com/ha");
  const half = source.read(false);
  assert.deepEqual(half.defined, []);
  assert.equal(half.openReferences.A?.href, "https://example.com/ha");
  source.append("lf\n\n");
  const { defined, references, openReferences } = source.read(false);
  assert.deepEqual(defined, ["A"]);
  assert.deepEqual(Object.keys(openReferences), []);
  assert.equal(references.A?.href, "https://example.com/half");
});

test("the text is that of plain markdown-it, which knows no boxes to tick", () => {
  const plain = new MarkdownIt({ linkify: true });
  const text = (html: string) => html.replace(/<[^>]*>|\s/g, "");
  for (const answer of ANSWERS.filter(
    (answer) => !/!\[|- \[ \]/.test(answer) && answer.length < 4000,
  )) {
    assert.equal(text(whole(answer).join(" ")), text(plain.render(answer)));
  }
});

describe("what is half written", () => {
  const shown = (text: string) => {
    const source = new Source();
    source.append(text);
    const { open, closed, openReferences } = source.read(false);
    const blocks = [...closed, ...open];
    return blocks
      .map((block, i) => render(shape(block, i === blocks.length - 1), openReferences))
      .join("")
      .replaceAll(' dir="auto"', "")
      .replaceAll(' dir="ltr"', "");
  };
  const cases: Record<string, string> = {
    "a **bo": "<p>a <strong>bo</strong></p>",
    "a **bold*": "<p>a <strong>bold</strong></p>",
    "a **bold**": "<p>a <strong>bold</strong></p>",
    "a **": "<p>a </p>",
    "**a *b": "<p><strong>a <em>b</em></strong></p>",
    "***a": "<p><em><strong>a</strong></em></p>",
    "~~a": "<p><s>a</s></p>",
    "2 * 3 * 4": "<p>2 * 3 * 4</p>",
    snake_case_na: "<p>snake_case_na</p>",
    "run `npm i": "<p>run <code>npm i</code></p>",
    "run `npm i`": "<p>run <code>npm i</code></p>",
    "run ``a `b": "<p>run <code>a `b</code></p>",
    "**run `x": "<p><strong>run <code>x</code></strong></p>",
    "see [the ": '<p>see <a href="">the</a></p>',
    "see [https://a.b": '<p>see <a href="">https://a.b</a></p>',
    "see [the docs]": '<p>see <a href="">the docs</a></p>',
    "see [the docs](htt": '<p>see <a href="">the docs</a></p>',
    'see [the docs](https://a.b "ti': '<p>see <a href="">the docs</a></p>',
    "see [**the": '<p>see <a href=""><strong>the</strong></a></p>',
    "see ![a pic": '<p>see <a href="">a pic</a></p>',
    "see [the docs][re": '<p>see <a href="">the docs</a></p>',
    "see [the docs](https://a.b)": '<p>see <a href="https://a.b">the docs</a></p>',
    "an [aside] that": "<p>an [aside] that</p>",
    "- [ ] to do": '<ul><li data-task="open">to do</li></ul>',
    "- [x]": '<ul><li data-task="done"></li></ul>',
    "1. [ ] to do": "<ol><li>[ ] to do</li></ol>",
    "- [": "<ul><li></li></ul>",
    "- [x": "<ul><li></li></ul>",
    "text\n-": "<p>text</p>",
    "text\n--": "<p>text</p>",
    "text\n1": "<p>text</p>",
    "text\n1.": "<p>text</p>",
    "text\n#": "<p>text</p>",
    "text\n\n```py": "<p>text</p>",
    "```py\nx": '<pre data-language="py"><code><span>x</span></code></pre>',
    "```py\nx\n``": '<pre data-language="py"><code><span>x\n</span></code></pre>',
    "- a\n-": "<ul><li>a</li></ul>",
    "- a\n- ": "<ul><li>a</li></ul>",
    "> ": "",
    "text\n| a |": "<p>text</p>",
    "| a | b |\n|--": "<p></p>",
    "| a | b |\n|---|--":
      "<table>\n<thead>\n<tr>\n<th>a</th><th>b</th></tr>\n</thead>\n<tbody></tbody></table>\n",
  };
  for (const [text, expected] of Object.entries(cases)) {
    test(JSON.stringify(text), () => {
      const tidy = (html: string) => html.replace(/\n(?=<)|(?<=>)\n/g, "");
      assert.equal(tidy(shown(text)), tidy(expected));
    });
  }

  test("a mark that stays open for long is a character", () => {
    const far = `\`${"word ".repeat(200)}`;
    assert.match(shown(far), /^<p>`word/);
    assert.match(shown(`*a ${"word ".repeat(200)}`), /^<p>\*a/);
    assert.match(shown(`[a ${"word ".repeat(200)}`), /^<p>\[a/);
  });

  test("is left out only as far as it may become something else", () => {
    assert.equal(withoutLooseLine("a\n- b"), "a\n- b");
    assert.equal(withoutLooseLine("a\n10 b"), "a\n10 b");
    assert.equal(withoutLooseEnds("a | b"), "a | b");
    assert.equal(withoutLooseEnds("Yes!"), "Yes!");
  });
});

describe("what the renderer makes", () => {
  const one = (text: string) => whole(text).join("");
  test("only links to http, https and mail", () => {
    for (const url of [
      "javascript:alert(1)",
      "JaVaScRiPt:x",
      "data:text/html,x",
      "vbscript:x",
      "file:///x",
      "/v1",
      "#x",
    ]) {
      assert.doesNotMatch(one(`[a](${url}) ![b](${url}) <${url}>\n\n[c]\n\n[c]: ${url}`), /href/);
    }
    assert.match(one("[a](HTTPS://example.com)"), /href="HTTPS:\/\/example.com"/);
    assert.match(one("<a@example.com>"), /href="mailto:a@example.com"/);
  });

  test("a link instead of an image, and none within a link", () => {
    assert.equal(
      one("![a *b*](https://example.com/x.png)"),
      '<p dir="auto"><a href="https://example.com/x.png">a b</a></p>',
    );
    assert.equal(one("[![a](https://x.example)](https://y.example)").match(/<a /g)?.length, 1);
  });

  test("HTML as text", () => {
    assert.equal(one("<b>x</b>"), '<p dir="auto">&lt;b&gt;x&lt;/b&gt;</p>');
  });

  test("no style, no class of the model's", () => {
    const found = one('| a |\n|:-:|\n| b |\n\n```js" onload="x\nf()\n```\n\n```x y="1"\n```');
    assert.doesNotMatch(found, /style|onload/);
    assert.match(found, /data-align="center"/);
  });

  test("colours for code that is complete and whose language is known", () => {
    assert.match(one("```python\ndef f(): pass\n```"), /hljs-keyword/);
    assert.doesNotMatch(one("```nope\ndef f(): pass\n```"), /hljs/);
    assert.match(one("- a\n  ```python\n  def f(): pass\n  ```"), /hljs-keyword/);
    assert.doesNotMatch(one(`\`\`\`python\n${"def f(): pass\n".repeat(2000)}\`\`\``), /hljs/);
  });
});

test("nothing takes long that a model could write", () => {
  const hostile = [
    ..."[*_`~<&!>".split("").map((mark) => mark.repeat(50_000)),
    ...["![", "[a](", "*a ", "**a *b ", "[a][", "http://", "a@b.c ", "> ", "- ", "| a "].map((s) =>
      s.repeat(8000),
    ),
  ];
  for (const text of hostile) {
    const start = process.cpuUsage();
    streamed([text.slice(0, -9), text.slice(-9)]);
    const { user, system } = process.cpuUsage(start);
    assert.ok(user + system < 4e6, `${text.slice(0, 8)}: ${(user + system) / 1e3} ms`);
  }
});

test("pieces of a long text are bounded, and lose nothing", () => {
  const text = `${"word ".repeat(3000)}${"x".repeat(9000)}`;
  assert.equal(pieces(text).join(""), text);
  assert.ok(pieces(text).every((piece) => piece.length <= 4001));
  assert.deepEqual(pieces("short"), ["short"]);
});

test("slugs are readable, each different, and the same each time", () => {
  const slugs = () => {
    const made = new Slugs();
    return [
      "Hello, World!",
      "Hello World",
      "hello-world-1",
      "Größe",
      "日本語 テスト",
      "🎉",
      "",
      "a".repeat(200),
    ].map((text) => made.take(text));
  };
  assert.deepEqual(slugs(), slugs());
  assert.equal(new Set(slugs()).size, 8);
  assert.deepEqual(slugs().slice(0, 7), [
    "hello-world",
    "hello-world-1",
    "hello-world-1-1",
    "größe",
    "日本語-テスト",
    "section",
    "section-1",
  ]);
});
