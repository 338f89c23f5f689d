"""How the Markdown view bears much text, and text made to be slow, in Chromium."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e.page.markdown_page import Watched, watched
from tests.e2e.page.tracing import traced

pytestmark = pytest.mark.e2e

SECTION = """## Part {n}

A paragraph with **bold** words, `code`, a [link](https://example.com/{n}) and enough text that it
wraps over several lines of the page, as paragraphs do. It has a second sentence, too.

- An item of a list, with *emphasis*
- Another one
  - and one below it

| name | value |
|------|------:|
| one  | {n}   |
| two  | `x`   |

```python
def part_{n}(value: int) -> str:
    # says what it does
    return f"part {{value}}"
```

> A quotation.

"""
#: Blocks that never close, each of which a naive view would render whole, again and again.
HUGE = {
    "a code of 200 KB": "```js\n" + "const value = compute(first, second); // why\n" * 4500,
    "a table of 2,000 rows": "| a | b | c |\n|---|---|--:|\n" + "| one | **two** | `3` |\n" * 2000,
    "a paragraph of 100 KB": "some **bold** words and `code` in it " * 2800,
    "a list of 3,000 items": "- an item with **bold** and [a link](https://a.test)\n" * 3000,
    "deep lists": "\n".join("  " * (i % 40) + "- item" for i in range(2000)),
    "deep quotes": "> " * 60 + "text\n" + (">" * 30 + " more\n") * 500,
    "brackets": "[" * 10_000,
    "images": "![" * 10_000,
    "stars": "*" * 10_000,
    "stars and letters": "*a " * 10_000,
    "half links": "[a](" * 10_000,
    "backticks": " ".join("`" * (i % 50 + 1) for i in range(4000)),
    "definitions": "".join(f"[a{i}]: https://a.test/{i}\n" for i in range(3000)),
}


@pytest.fixture(scope="module")
def shown(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(chromium, tmp_path_factory.mktemp("markdown")) as shown:
        yield shown


def pour(shown: Watched, pieces: list[str], every: float) -> dict[str, Any]:
    """Lets these come, one in `every` ms, or one with each frame where that is 0.

    `tasks` are the page's long tasks by the clock, in ms; `cpu` is the longest by its processor
    time. Neither counts the first second.
    """
    shown.open()
    with traced(shown.page) as work:
        found: dict[str, Any] = shown.page.evaluate(
            "([pieces, every]) => page.pour(pieces, every)", [pieces, every]
        )
    found["cpu"] = work.longest_task
    return found


def test_five_thousand_tokens(shown: Watched) -> None:
    text = "".join(SECTION.format(n=n) for n in range(80))
    found = pour(shown, [text[at : at + 4] for at in range(0, 20_000, 4)], 1)
    print(f"5,000 tokens: {found}")
    assert found["renders"] > 5
    assert found["added"] < 2 * found["nodes"] + 300 * found["renders"]
    assert found["cpu"] <= 100


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_block(shown: Watched, name: str) -> None:
    text = HUGE[name]
    size = max(50, len(text) // 150)
    found = pour(shown, [text[at : at + size] for at in range(0, len(text), size)], 0)
    print(f"{name}, {len(text) // 1000} KB: {found}")
    # It shows while it comes, little of it more than once, and never freezes.
    assert found["renders"] > 5
    assert found["added"] < 2 * found["nodes"] + 300 * found["renders"]
    assert found["cpu"] <= 300


def test_what_a_hidden_tab_has_stored_up(shown: Watched) -> None:
    text = "".join(SECTION.format(n=n) for n in range(300))
    found = pour(shown, [text], 0)
    print(f"{len(text) // 1000} KB at once: {found}")
    assert shown.page.evaluate("document.querySelectorAll('section h2').length") == 300
    assert found["renders"] > 10
    assert found["added"] < 2 * found["nodes"]
    assert found["cpu"] <= 100
