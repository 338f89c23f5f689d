"""Plain characters: what is written in another form of ASCII is found as if it were ASCII.

Who writes Japanese or Chinese may write `＠` and `１` in full width, and "𝗷𝗮𝗻𝗲" is only a font.
One character stands for one, so places in a text are the same in its plain form. Superscripts and
circled digits are not folded: they are mostly notes beside a value, and would hide it.
"""

import unicodedata
from functools import lru_cache

_FORMS = ("<wide>", "<small>", "<font>")


@lru_cache(maxsize=4096)
def plain_char(char: str) -> str:
    form, _, code = unicodedata.decomposition(char).partition(" ")
    if form in _FORMS and " " not in code:
        return chr(int(code, 16))
    return char


def plain(text: str) -> str:
    """A text of the same length, character by character."""
    return text if text.isascii() else "".join(map(plain_char, text))
