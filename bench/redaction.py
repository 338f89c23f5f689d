"""What redaction costs: time for a delta, text that is held back, and a tenant's first stream.

All detectors are on. A delta has five characters, about as many as a token. The peer is the same
text without rules, which is normalised and no more.
"""

import json
import time
from statistics import mean

from bench.parts import ROOT, Bench
from bench.rows import Row
from shared.redaction import Redactor, Rules, redact
from shared.redaction.detectors import NAMES
from shared.redaction.shapes import compiled

DELTA_CHARS = 5
#: As many characters as an answer of 500 tokens has, and as a long prompt.
ANSWER_CHARS = 2500
PROMPT_CHARS = 250_000
NO_RULES = "no rules"

_ALL = Rules.from_document({"detectors": dict.fromkeys(NAMES, "mask")})
_NONE = Rules()


async def measure(bench: Bench) -> list[Row]:
    rounds = 2 if bench.quick else 20
    rows = [_first_answer()]
    for kind, text in _texts().items():
        bench.say(kind)
        answer = _repeated(text, ANSWER_CHARS)
        value, peer = (min(_delta_us(answer, r) for _ in range(rounds)) for r in (_ALL, _NONE))
        rows.append(Row("redaction", f"a delta of {kind}", value, "µs", NO_RULES, peer))
    for kind, text in _texts().items():
        held = _held(_repeated(text, ANSWER_CHARS))
        rows.append(Row("redaction", f"held after a delta of {kind}, mean", mean(held), "chars"))
        rows.append(Row("redaction", f"held after a delta of {kind}, most", max(held), "chars"))
    for kind, text in _texts().items():
        prompt = _repeated(text, PROMPT_CHARS // 10 if bench.quick else PROMPT_CHARS)
        speeds = [_mb_per_s(prompt, rules) for rules in (_ALL, _NONE)]
        rows.append(Row("redaction", f"a prompt of {kind}", speeds[0], "MB/s", NO_RULES, speeds[1]))
    return rows


def _first_answer() -> Row:
    """A tenant's first answer in a process: its machine is made, and its states."""
    compiled.cache_clear()
    began = time.process_time_ns()
    Redactor(_ALL, secret=b"")
    made = time.process_time_ns()
    _delta_us(_repeated(_texts()["prose"], ANSWER_CHARS), _ALL)
    taken = (time.process_time_ns() - began) / 1e6
    what = "a process's first answer of 500 tokens of prose"
    return Row("redaction", what, taken, "ms", "of it to make the machine", (made - began) / 1e6)


def _delta_us(text: str, rules: Rules) -> float:
    deltas = _deltas(text)
    redactor = Redactor(rules, secret=b"")
    began = time.process_time_ns()
    for delta in deltas:
        redactor.feed(delta)
    redactor.finish()
    return (time.process_time_ns() - began) / 1e3 / len(deltas)


def _held(text: str) -> list[int]:
    redactor = Redactor(_ALL, secret=b"")
    held = []
    for delta in _deltas(text):
        redactor.feed(delta)
        held.append(redactor.held)
    return held


def _mb_per_s(text: str, rules: Rules) -> float:
    began = time.process_time_ns()
    redact(text, rules, secret=b"")
    return len(text.encode()) * 1e3 / (time.process_time_ns() - began)


def _deltas(text: str) -> list[str]:
    return [text[at : at + DELTA_CHARS] for at in range(0, len(text), DELTA_CHARS)]


def _repeated(text: str, length: int) -> str:
    return (text * (length // len(text) + 1))[:length]


def _texts() -> dict[str, str]:
    corpus = ROOT / "tests" / "shared" / "redaction" / "corpus"
    markdown = (corpus / "markdown.md").read_text().splitlines(keepends=True)
    prose = (corpus / "prose.txt").read_text().splitlines(keepends=True)
    rows = [
        {"id": n, "name": f"item-{n}", "price": n * 1.25, "tags": ["a", "b"]} for n in range(99)
    ]
    return {
        "prose": "".join(line for line in prose if line.isascii()),
        "Chinese": "".join(line for line in prose if "\u4e00" <= line[0] <= "\u9fff"),
        # Without the lines that speak of keys: after such a word more is held.
        "Markdown": "".join(line for line in markdown if "PRIVATE KEY" not in line),
        "code": (corpus / "code.txt").read_text(),
        "JSON": json.dumps(rows, indent=1),
    }
