"""The Markdown view in Chromium: the same in pieces as at once, safe, and usable."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.page.hostile_markdown import WRITTEN
from tests.e2e.page.markdown_page import ROOT, Watched, watched

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def shown(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(chromium, tmp_path_factory.mktemp("markdown")) as shown:
        yield shown


@pytest.fixture(autouse=True)
def _anew(shown: Watched) -> None:
    shown.open()


def cuts(text: str, seed: int, mean: int) -> list[str]:
    """The text in pieces at random."""
    chance = random.Random(seed)
    pieces, at = [], 0
    while at < len(text):
        end = at + chance.randint(1, 2 * mean)
        pieces.append(text[at:end])
        at = end
    return pieces


def test_in_pieces_as_at_once(shown: Watched) -> None:
    answers: list[str] = shown.page.evaluate("page.answers")
    for seed, text in enumerate(answers):
        at_once = shown.page.evaluate("(text) => page.whole(text)", text)
        pieces = cuts(text, seed, max(3, len(text) // 60))
        assert shown.page.evaluate("(pieces) => page.streamed(pieces)", pieces) == at_once, text
    assert shown.offences() == []


def test_nothing_runs_and_nothing_is_loaded(shown: Watched) -> None:
    for text in WRITTEN:
        shown.page.evaluate("(text) => page.whole(text)", text)
        assert shown.page.evaluate("page.unexpected()") == [], text
    shown.page.evaluate("(text) => page.whole(text)", "\n\n".join(WRITTEN))
    assert shown.page.evaluate("page.unexpected()") == []
    assert shown.offences() == []


def test_nothing_runs_while_it_is_half_written(shown: Watched) -> None:
    assert shown.page.evaluate("(texts) => page.typed(texts)", WRITTEN) == []
    assert shown.offences() == []


def test_the_watch_sees(shown: Watched) -> None:
    shown.page.evaluate("""() => {
      const image = document.createElement("img");
      document.querySelector("main").append(image);
      image.setAttribute("src", "https://evil.test/x");
      try { document.querySelector("main").innerHTML = "<b>"; } catch { window.xss = 1; }
    }""")
    shown.page.wait_for_timeout(200)
    found = " ".join(shown.offences())
    assert "img-src https://evil.test/x" in found
    assert "require-trusted-types-for" in found
    assert "xss" in found
    assert shown.page.evaluate("page.unexpected()") == ["<img>", "img src=https://evil.test/x"]


def test_what_is_closed_stays(shown: Watched) -> None:
    kept = shown.page.evaluate("""async () => {
      const view = page.fresh();
      view.append("First paragraph.\\n\\n- an item\\n- another\\n\\nThe **third** grows");
      await page.settled(view);
      const host = document.querySelector("section");
      const [first, list, third] = host.children;
      const text = third.querySelector("strong").nextSibling;
      getSelection().setBaseAndExtent(list.firstChild.firstChild, 0, text, 3);
      for (const more of [" and grows", ".\\n\\n", "# A heading\\n", "and *more*"]) {
        view.append(more);
        await page.settled(view);
      }
      view.finish();
      const same = [first, list, third].every((node, i) => node === host.children[i]);
      return [same, getSelection().toString().split(/\\n+/).join("|"), text.isConnected];
    }""")
    assert kept == [True, "an item|another|The third gr", True]


def test_links_and_images(shown: Watched) -> None:
    shown.page.evaluate(
        "(text) => page.whole(text)", "[a](https://a.test 'T') ![pic](https://b.test/x.png)"
    )
    links = shown.page.evaluate("""() => [...document.querySelectorAll("section a")].map(
      (a) => [a.textContent, a.getAttribute("href"), a.rel, a.target, a.title])""")
    rel = "noopener noreferrer nofollow ugc"
    assert links == [
        ["a", "https://a.test", rel, "_blank", "T"],
        ["pic", "https://b.test/x.png", rel, "_blank", ""],
    ]


def test_a_late_definition_reaches_back(shown: Watched) -> None:
    found = shown.page.evaluate("""async () => {
      const view = page.fresh();
      view.append("# About [it]\\n\\nSee [it] and [other].\\n\\nMore.\\n\\n");
      await page.settled(view);
      const before = document.querySelectorAll("section a[target]").length;
      view.append("[it]: https://it.test\\n\\n");
      await page.settled(view);
      const links = [...document.querySelectorAll("section a[target]")];
      return [before, links.map((a) => a.href), document.querySelectorAll(".anchor").length,
        document.querySelector("h1").id];
    }""")
    assert found == [0, ["https://it.test/", "https://it.test/"], 1, "answer-about-it"]


def test_headings_have_names(shown: Watched) -> None:
    shown.page.evaluate("(text) => page.whole(text)", "# One\n\n## A `b`\n\n## One\n\n> # not\n")
    found = shown.page.evaluate("""() => [...document.querySelectorAll("[id]")].map(
      (h) => [h.id, h.querySelector(".anchor").hash, h.querySelector(".anchor").ariaLabel])""")
    assert found == [
        ["answer-one", "#/answer/one", "Link to “One”"],
        ["answer-a-b", "#/answer/a-b", "Link to “A b”"],
        ["answer-one-1", "#/answer/one-1", "Link to “One”"],
    ]
    headings = shown.page.evaluate("""async () => {
      const view = page.fresh();
      view.append("# One\\n## Tw");
      await page.settled(view);
      return [...view.headings];
    }""")
    assert headings == [{"level": 1, "text": "One", "id": "answer-one"}]


@pytest.mark.parametrize("clipboard", [True, False])
def test_code_is_copied_by_keyboard(shown: Watched, *, clipboard: bool) -> None:
    page = shown.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("(text) => page.whole(text)", "```python\ndef f():\n    return '<b>'\n```")
    if not clipboard:
        page.evaluate(
            "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
        )
    button = page.get_by_role("button", name="Copy the code in python")
    button.focus()
    page.keyboard.press("Enter")
    shown.until("document.querySelector('[role=status]').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == "def f():\n    return '<b>'\n"
    assert page.evaluate("document.activeElement.className") == "code-copy"
    shown.until("document.querySelector('[role=status]').textContent === ''")


def test_while_it_is_written(shown: Watched) -> None:
    state = """() => {
      const cursor = document.querySelector(".cursor");
      return [cursor?.parentElement.localName, cursor?.ariaHidden,
        [...CSS.highlights.values()].some((h) => h.size > 0)];
    }"""
    shown.page.evaluate("""async () => {
      window.view = page.fresh();
      view.append("Text\\n\\n- item **bo");
      await page.frame();
      await page.frame();
    }""")
    assert shown.page.evaluate(state) == ["li", "true", True]
    shown.until("[...CSS.highlights.values()].every((h) => h.size === 0)")
    shown.page.evaluate("view.append('\\n\\n```js\\nlet x = 1;'); page.settled(view)")
    shown.until("document.querySelector('.cursor').closest('code') !== null")
    assert shown.page.evaluate("document.querySelectorAll('.hljs-keyword').length") == 0
    shown.page.evaluate("view.finish()")
    assert shown.page.evaluate(state)[0] is None
    assert shown.page.evaluate("document.querySelectorAll('.hljs-keyword').length") == 1


def test_an_answer_may_go_on_after_its_end(shown: Watched) -> None:
    html = shown.page.evaluate("""async () => {
      const view = page.fresh();
      view.append("One **wo");
      view.finish();
      view.append("rd**");
      view.finish();
      return page.html();
    }""")
    assert html == '<p dir="auto">One <strong>word</strong></p>'


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(shown: Watched, scheme: str) -> None:
    page = shown.page
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    code = Path(ROOT / "web" / "src" / "markdown" / "code.ts").read_text()
    python = Path(__file__).read_text()
    text = (
        "# Title\n\nText with `code`, [link](https://a.test).\n\n> quote\n\n"
        "| a | b |\n|---|--:|\n| 1 | 2 |\n\n"
        f"```ts\n{code}```\n\n```python\n{python[:4000]}\n```\n\n```diff\n- a\n+ b\n```\n\n"
        '```html\n<p class="a">&amp;<!-- c --></p>\n```\n'
    )
    page.evaluate("async (text) => { await page.whole(text); }", text)
    page.evaluate((ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate("""async () => (await axe.run("section")).violations.map(
      (v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html + n.failureSummary)])""")
    page.emulate_media(color_scheme="light")
    assert found == []


def test_a_table_of_many_columns_is_scrolled_to_and_not_squeezed(shown: Watched) -> None:
    row = "| eu-west-1 | stream | 10000 | 12 ms | 0.1 % | a note of some length on this row |"
    shown.page.set_viewport_size({"width": 390, "height": 844})
    shown.page.evaluate("(text) => page.whole(text)", f"|A|B|C|D|E|F|\n{'|---' * 6}|\n{row}")
    hidden, lines = shown.page.evaluate("""() => {
      const table = document.querySelector("section .table");
      const cell = table.querySelector("td");
      const line = Number.parseFloat(getComputedStyle(cell).lineHeight);
      return [table.scrollWidth - table.clientWidth, Math.floor(cell.offsetHeight / line)];
    }""")
    shown.page.set_viewport_size({"width": 1280, "height": 720})
    assert hidden > 0
    assert lines == 1


def test_right_to_left(shown: Watched) -> None:
    shown.page.evaluate(
        "(text) => page.whole(text)", "مرحبا\n\n- بند\n\n> اقتباس\n\nhello\n\n```\ncode\n```"
    )
    found = shown.page.evaluate("""() => [...document.querySelectorAll(
      "section p, section li, section blockquote, section pre")].map(
      (e) => [e.localName, getComputedStyle(e).direction])""")
    assert found == [
        ["p", "rtl"],
        ["li", "rtl"],
        ["blockquote", "rtl"],
        ["p", "rtl"],
        ["p", "ltr"],
        ["pre", "ltr"],
    ]
