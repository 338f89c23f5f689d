"""Checks: whether a text of the right shape is what it looks like, and which part of it counts.

A check is given the longest text that fits a detector's shape. It returns where the value in it
begins and ends, or None where there is none.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

Span = tuple[int, int]
Check = Callable[[str], Span | None]

#: What looks like a top-level domain in code, and is none: files, systemd units, attributes.
_NOT_DOMAIN = re.compile(
    r"(?i)astype|bmp|bz2|class|conf|conj|copy|cpp|css|csv|dll|exe|flatten|getter|gif|gz|htm"
    r"|html|ico|ini|jar|jpeg|jpg|js|json|jsx|log|mean|min|mjs|mount|path|pdf|png|prototype"
    r"|reshape|rpm|scss|service|setter|shape|slice|socket|sum|svg|swap|tar|tgz"
    r"|timer|toml|transpose|ts|tsx|ttf|txt|utf|values|war|webp|whl|woff|xml|yaml|yml"
)

#: Prefixes and lengths of payment cards, as the networks give them out.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
    r"|3(?:0[0-59]|[689]\d)\d{11}(?:\d\d)?"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
    r"|62\d{14,17}"  # UnionPay
    r"|220[0-4]\d{12,15}"  # Mir
    r"|(?:6304|6759|676[1-3]|50(?:1[89]|2\d|3[0-8]))\d{12,15}"  # Maestro
)

#: The length of an IBAN by its country: SWIFT's registry, release 101.
_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    )
    for country in countries.split()
}

#: The calling codes in use (ITU-T E.164).
_CODE = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2(?:1[12368]|[2-4]\d|5[0-8]|6\d|9[01789])|3(?:5\d|7[0-8]|8[0-35-79])|42[013]|50\d|59\d"
    r"|6(?:7[02-9]|8[0-35-9]|9[0-2])|8(?:0[08]|5[02356]|7[08]|8[0-368])|9(?:6[0-8]|7[0-79]|9[2-68])"
)
#: Islands whose numbers are shorter than all others.
_SHORT_CODE = re.compile(r"247|290|500|67[678]|68[23568]|690")

_DIGITS = re.compile(r"\d+")
#: An address may stand in a link or a page, where its sign is written in another way.
_AT = re.compile(r"@|%40|&#64;")
_IBAN_CHAR = re.compile(r"[0-9A-Za-z]")
_SECRET_NAME = re.compile(
    r"(?i)(?:(?:aws)?secret[ _-]?(?:access[ _-]?)?key|(?:storage)?account_?key"
    r"|shared_?access_?key|sig)[^0-9A-Za-z+/%]*"
)
_BEARER = re.compile(r"(?i)bearer[^0-9A-Za-z._~+/-]+")
_PHONE_START = re.compile(r"[(+\d]")
_DATE = re.compile(r"(?:19|20)\d\d[-./]\d\d?[-./]\d\d?|\d\d?[./]\d\d?[./](?:19|20)\d\d")


def whole(text: str) -> Span | None:
    """The shape is enough."""
    return 0, len(text)


def email(text: str) -> Span | None:
    """An address without the punctuation before it, and without a file's suffix after it.

    `git@host:path` names nobody, and neither do `icon@2x.png` and `getty@tty1.service`.
    """
    *_, sign = _AT.finditer(text)
    local, domain = text[: sign.start()], text[sign.end() :]
    labels = domain.split(".")
    while _NOT_DOMAIN.fullmatch(labels[-1]):
        labels.pop()
        if not labels:
            return None
    start = len(local) - len(local.lstrip("._%+'-"))
    top = labels[-1].isalpha() or labels[-1].startswith("xn--")
    if start == len(local) or local.lower() == "git" or len(labels) < 2 or not top:
        return None
    return start, sign.end() + len(".".join(labels))


def address(text: str) -> str:
    """An address as it is compared."""
    return _AT.sub("@", text).casefold()


def card(text: str) -> Span | None:
    """A number of a known issuer and length whose Luhn digit is right; what follows it may be cut.

    The digits are in one group, in groups of one length (the last may be shorter), or as the
    networks print them; digit by digit only where nothing is cut. A line may break within it, once:
    numbers of a line each are a list. What has a fraction is no card.
    """
    every = None
    for groups, start, end in _prefixes(text):
        every = every or groups
        number, written = "".join(groups), text[start:end]
        known = _CARD.fullmatch(number) and _has_luhn_digit(number)
        grouped = _is_grouped(groups) or (groups == every and set(map(len, groups)) == {1})
        fraction = text[end : end + 1] == "." and "." not in written
        if known and grouped and not fraction and written.count("\n") < 2:
            return start, end
    return None


def iban(text: str) -> Span | None:
    """A country's length and the check digits (ISO 13616, modulo 97); what follows it is cut."""
    length = _IBAN_LENGTHS.get(text[:2].upper(), 0)
    places = [match.start() for match in _IBAN_CHAR.finditer(text)][:length]
    if not length or len(places) < length:
        return None
    number = "".join(text[place] for place in places)
    rest = "".join(str(int(char, 36)) for char in number[4:] + number[:4])
    return (0, places[-1] + 1) if int(rest) % 97 == 1 else None


def ssn(text: str) -> Span | None:
    """Areas, groups and serials that are given out (SSA); the word before it is let through."""
    start = _DIGITS.search(text)
    if start is None:
        return None
    number = digits(text)
    area, group, serial = int(number[:3]), int(number[3:5]), int(number[5:])
    issued = area not in (0, 666) and area < 900 and group and serial
    return (start.start(), len(text)) if issued else None


def ipv4(text: str) -> Span | None:
    """Four octets, but no netmask, loopback or unspecified address: they identify nobody."""
    parts = text.split(".")
    if len(parts) != 4 or any(len(part) > 3 or (part[0] == "0" and part != "0") for part in parts):
        return None
    octets = [int(part) for part in parts]
    if max(octets) > 255 or octets[0] in (0, 127, 255):
        return None
    return 0, len(text)


def ipv6(text: str) -> Span | None:
    """An address with a digit, two groups, and a long one: `1::3` is a slice in Python."""
    import ipaddress

    for end in (len(text), len(text) - 1):
        groups = [group for group in text[:end].split(":") if group]
        try:
            ipaddress.IPv6Address(text[:end])
        except ValueError:
            continue
        long = len(groups) > 1 and max(map(len, groups)) > 2
        if long and any(char.isdigit() for char in text[:end]):
            return 0, end
    return None


def named_secret(text: str) -> Span | None:
    """What follows the name of a secret: `AccountKey=…`."""
    name = _SECRET_NAME.match(text)
    return (name.end(), len(text)) if name else None


def bearer(text: str) -> Span | None:
    """A token has a digit; `Bearer your-access-token` has none."""
    word = _BEARER.match(text)
    start = word.end() if word else 0
    end = len(text.rstrip("."))
    return (start, end) if any(char.isdigit() for char in text[start:end]) else None


def international_phone(text: str) -> Span | None:
    """A calling code in use and 9 to 15 digits (ITU-T E.164); +1 and +7 have 11, islands fewer.

    Not a sum (`x + 261954000`), a fraction (`+ 6.119404879`), or a number filled up with zeros.
    """
    zeros = text.startswith("00")
    found = None
    for groups, _, end in _prefixes(text):
        number = "".join(groups)[2 if zeros else 0 :]
        if _is_sum(text, groups) or (zeros and len(groups) == 1 and number[:1] == "1"):
            break
        if number[:1] in ("1", "7") and len(number) == 11:
            return 0, end
        least = 7 if _SHORT_CODE.match(number) else 9
        if not found and least <= len(number) <= 15 and _CODE.match(number):
            found = 0, end
    return found


def _is_sum(text: str, groups: list[str]) -> bool:
    dotted = "." in text
    if text[1].isspace():
        return len(groups) < 3 or dotted
    return len(groups) == 2 and dotted and not (text[0] == "+" and _CODE.fullmatch(groups[0]))


def american_phone(text: str) -> Span | None:
    """Area and exchange of the North American plan: neither is 911 or the like."""
    number = digits(text)[-10:]
    return None if number[1:3] == "11" or number[4:6] == "11" else (0, len(text))


def national_phone(text: str) -> Span | None:
    """A trunk 0 and groups of digits, all apart by one sign but the first.

    Not a date and its time, nor what counts (`01 02 03 04 05`), nor bytes (`08 00 45 00`).
    """
    groups = _DIGITS.findall(text)
    signs = [sign for sign in _DIGITS.split(text)[1:-1] if sign]
    numbers = [int(group) for group in groups]
    steps = {after - before for before, after in pairwise(numbers)}
    counts = len(groups) > 2 and (steps == {1} or steps == {-1})
    same = len(set(signs[1:])) <= 1 and (signs[0] == signs[-1] or signs[0] not in (".", ":"))
    phone = len(digits(text)) > 8 and same and not counts and numbers.count(0) < 2
    return (0, len(text)) if phone and all(len(group) > 1 for group in groups) else None


def named_phone(text: str) -> Span | None:
    """Seven digits or more after a word like "phone", unless they are a date."""
    start = _PHONE_START.search(text)
    if start is None or _DATE.match(text, start.start()):
        return None
    return start.start(), len(text)


def digits(text: str) -> str:
    """The digits of any script, as 0 to 9."""
    return "".join(str(int(char)) for char in text if char.isdecimal())


def _prefixes(text: str) -> Iterator[tuple[list[str], int, int]]:
    """The groups of digits in a text, then without the last of them, and so on; and where they lie.

    A text's shape is the longest that fits, so what comes after a number may be in it too.
    """
    matches = list(_DIGITS.finditer(text))
    groups = [digits(match[0]) for match in matches]
    for count in range(len(matches), 0, -1):
        yield groups[:count], matches[0].start(), matches[count - 1].end()


def _has_luhn_digit(number: str) -> bool:
    """The check digit of ISO/IEC 7812: every second digit counts twice, by its own digits."""
    plain = sum(map(int, number[-1::-2]))
    return (plain + sum((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[int(d)] for d in number[-2::-2])) % 10 == 0


def _is_grouped(groups: list[str]) -> bool:
    *equal, last = [len(group) for group in groups]
    if not equal or [*equal, last] in ([4, 6, 5], [4, 6, 4]):
        return True
    return len(set(equal)) == 1 and equal[0] >= max(last, 3)
