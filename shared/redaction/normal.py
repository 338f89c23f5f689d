"""Normalisation: what a model says, as text that can be stored, sent and searched.

- Half a surrogate pair becomes U+FFFD; two halves that follow each other are joined.
- A line ends with `\\n`, however the model wrote it.
- Control characters (C0 and C1, but not `\\n` and `\\t`) and U+FEFF are removed.
- Direction overrides, embeddings and isolates are removed: they show a text in another order than
  it has ("Trojan Source", CVE-2021-42574), and mixed scripts read well without them.
- Zero-width spaces, word joiners, soft hyphens and the like are removed: they show nothing, and
  hide a value from who looks for it.
- Joiners, direction marks, fillers, variation selectors and tags stay, because scripts and emoji
  need them; but not between two visible ASCII characters, where they can only hide something.
"""

import re

_REMOVED = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
#: All else that Unicode lets a renderer leave out (Default_Ignorable_Code_Point).
_INVISIBLE = (
    r"\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u200c-\u200f\u3164\ufe00-\ufe0f"
    r"\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
#: A run of invisible characters that is longer is removed wherever it follows visible ASCII.
_RUN_MAX = 16
#: The most that is held back, in characters: such a run, and half of a pair or of a line's end.
HELD_MAX = _RUN_MAX + 2

_ANYTHING = re.compile(rf"[{_REMOVED}{_INVISIBLE}\ud800-\udfff]")
_LINE_END = re.compile(r"\r\n?")
_REMOVE = re.compile(rf"[{_REMOVED}]+")
_HIDING = re.compile(
    rf"(?<=[!-~])(?:[{_INVISIBLE}]{{1,{_RUN_MAX}}}(?=[!-~])|[{_INVISIBLE}]{{{_RUN_MAX + 1},}})"
)
_OPEN_RUN = re.compile(rf"(?<=[!-~])[{_INVISIBLE}]+\Z")


class Normaliser:
    """One stream's text, normalised; for every split the outcome is that of the whole text.

    What it holds back nobody could see.
    """

    def __init__(self) -> None:
        self._half = ""  # a first half of a pair, or of a line's end
        self._last = ""  # the last character given out
        self._run = ""  # invisible characters after it

    @property
    def held(self) -> int:
        return len(self._half) + len(self._run)

    def feed(self, delta: str) -> str:
        if not self._half and not self._run and not _ANYTHING.search(delta):
            self._last = delta[-1:] or self._last
            return delta
        text = self._half + delta
        self._half = text[-1:] if text[-1:] == "\r" or "\ud800" <= text[-1:] <= "\udbff" else ""
        text = _clean(text[: len(text) - len(self._half)])
        text = self._last + self._run + text
        open_run = _OPEN_RUN.search(text)
        self._run = open_run[0][: _RUN_MAX + 1] if open_run else ""
        return self._give(text[: open_run.start()] if open_run else text)

    def finish(self) -> str:
        text, self._half = _clean(self._half), ""
        text, self._run = self._last + self._run + text, ""
        return self._give(text)

    def _give(self, text: str) -> str:
        """What follows the last character given out, which `text` begins with."""
        text = _HIDING.sub("", text)[len(self._last) :]
        self._last = text[-1:] or self._last
        return text


def _clean(text: str) -> str:
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _REMOVE.sub("", _LINE_END.sub("\n", text))
