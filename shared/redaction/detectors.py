"""Detectors: what each built-in rule looks for.

A detector is a shape and a check of what has it. The shapes are patterns (`patterns.py`) of which
a machine takes the longest text, so each says by its edges where a value begins and ends. A match
has at most `MATCH_MAX` characters; what may be longer has a `tail`: from the moment its shape is
complete all that fits the tail is part of the match, without being held.
"""

from collections.abc import Callable
from dataclasses import dataclass

from shared.redaction import checks
from shared.redaction.checks import Check

# Parts of shapes, to stand in a class. Models like typographic spaces and hyphens in numbers.
#: A joiner or a mark of direction shows as nothing, and copies as nothing.
_SPACE = r" \u00a0\u034f\u061c\u2000-\u200a\u200c-\u200f\u202f\u205f"
_HYPHEN = r"\u2010-\u2015\u2212\-"
_APART = rf"{_SPACE}{_HYPHEN}./()"
#: Between the groups of a number that has check digits, so that more can be allowed.
_GAP = rf"[{_SPACE}\t\n{_HYPHEN}._\u00b7]{{0,3}}"
#: The letters of scripts that put spaces between words: Latin, Greek, Cyrillic.
_LETTER = r"a-zA-Z\u00c0-\u024f\u0370-\u052f"
#: And their accents, where these are characters of their own (NFD).
_MARKED = rf"{_LETTER}\u0300-\u036f"
_ALNUM = "0-9A-Za-z"
_URL64 = "0-9A-Za-z_-"
_TOKEN = "0-9A-Za-z._~+/=-"  # noqa: S105 - RFC 6750's b64token
#: Between "Bearer" and its token: a header, its line broken, quoted, or in code.
_THEN = rf"[{_SPACE}\t\n:=\"'`]{{1,6}}"
#: What stands between a name and its value: `KEY="…"`, `"Key": "…"`, `**Key:** …`.
_ASSIGN = r"[ \t\n\u00a0:=>*|\"'`]{1,8}"
_PHONE_WORD = (
    "tel(?:ephone|efon|éfono)?|phone|mobile|mobil|móvil|cell|celular|fax|call|whatsapp|handy|tél"
    "|téléphone|電話|电话|手机|携帯"
)
_KEYS = "|".join(
    (
        rf"AIza[{_URL64}]{{35}}",  # Google API key
        rf"GOCSPX-[{_URL64}]{{20}}",  # Google OAuth client secret
        rf"ya29\.[{_URL64}]{{20}}",  # Google access token
        rf"gh[oprsu]_[{_ALNUM}]{{30}}",  # GitHub
        rf"github_pat_[{_ALNUM}_]{{30}}",
        rf"glpat-[{_URL64}]{{20}}",  # GitLab
        rf"xox[a-z]-[{_ALNUM}-]{{10}}",  # Slack
        rf"xapp-\d-[{_ALNUM}-]{{10}}",
        rf"hooks\.slack\.com/(?:services|workflows|triggers)/[{_ALNUM}/]{{20}}",
        rf"[rs]k_(?:live|test)_[{_ALNUM}]{{16}}",  # Stripe
        rf"whsec_[{_ALNUM}+/]{{24}}",
        rf"sk-(?:proj|svcacct|admin|ant|or)-[{_URL64}]{{20}}",  # OpenAI, Anthropic, OpenRouter
        rf"sk-[{_ALNUM}]{{32}}",
        rf"hf_[{_ALNUM}]{{30}}",  # Hugging Face
        rf"npm_[{_ALNUM}]{{36}}",
        rf"pypi-AgEI[{_URL64}]{{30}}",
        rf"SG\.[{_URL64}]{{16,32}}\.[{_URL64}]{{16}}",  # SendGrid
        r"do[opr]_v1_[0-9a-f]{32}",  # DigitalOcean
        r"dapi[0-9a-f]{32}",  # Databricks
        r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}",  # Shopify
        rf"AGE-SECRET-KEY-1[{_ALNUM}]{{40}}",
    )
)


@dataclass(frozen=True, slots=True)
class Detector:
    """`canonical` makes equal what is written differently, before it is hashed."""

    name: str
    shape: str
    check: Check = checks.whole
    canonical: Callable[[str], str] = str.casefold
    tail: str | None = None


def _compact(text: str) -> str:
    return "".join(char for char in text if char.isalnum()).upper()


#: By priority: of two matches at one place of one length the first names what is replaced.
DETECTORS = (
    Detector(
        "private_key",
        # What follows is a line of base64, the end, or how every key in DER begins (`MII…`).
        rf"-----? ?BEGIN[{_SPACE}][0-9A-Z{_SPACE}]{{0,40}}PRIVATE[{_SPACE}]KEY(?: BLOCK)? ?-----?"
        rf"[\S\s]{{0,160}}(?:[{_ALNUM}+/]{{20}}|M(?:I[GIH]|C4|Hc)[{_ALNUM}]|-----? ?END )",
        canonical=str,
        # Everything up to the dashes (RFC 7468; SSH has four), and the line that they begin.
        tail=r"(?:-{0,3}[^-])*(?:-----?(?: ?END [0-9A-Z ]{0,60}-----?)?)?",
    ),
    Detector(
        "jwt",
        rf"(?<![{_ALNUM}])eyJ[{_URL64}]{{8}}[{_URL64}]*(?:\.eyJ[{_URL64}]{{4}}|\.[{_URL64}]{{20}})",
        canonical=str,
        tail=rf"(?:\.?[{_URL64}])*",
    ),
    Detector(
        "jwt",  # with a header of any length, known by the name of its first parameter
        rf"(?<![{_ALNUM}])eyJ(?:hbGciOi|0eXAiOi|raWQiOi|lbmMiOi|jdHkiOi|4NW[MQtVu]|qa3Ui|qd2si|lcGsi)"
        rf"[{_URL64}]{{300}}",
        canonical=str,
        tail=rf"(?:\.?[{_URL64}])*",
    ),
    Detector(
        "bearer",
        rf"(?<![{_ALNUM}])(?i:bearer){_THEN}[{_TOKEN}]{{16,64}}(?![{_TOKEN}])",
        checks.bearer,
        canonical=str,
    ),
    Detector(
        "bearer",
        rf"(?<![{_ALNUM}])(?i:bearer){_THEN}[{_TOKEN}]{{65}}",
        checks.bearer,
        canonical=str,
        tail=rf"(?:\.?[{_TOKEN}])*",
    ),
    Detector(
        "cloud_key",
        rf"(?<![{_ALNUM}])(?:{_KEYS})",
        canonical=str,
        tail=rf"(?:[./+]?[{_URL64}])*",
    ),
    Detector(
        "cloud_key",  # AWS access key id
        rf"(?<![{_ALNUM}])(?:AKIA|ASIA|ABIA|ACCA)[2-7A-Z]{{16}}(?![{_ALNUM}])",
        canonical=str,
    ),
    Detector(
        "cloud_key",  # AWS secret access key
        rf"(?<![{_ALNUM}])(?i:(?:aws)?secret[ _-]?(?:access[ _-]?)?key){_ASSIGN}"
        rf"[{_ALNUM}+/]{{40}}(?![{_ALNUM}+/=])",
        checks.named_secret,
        canonical=str,
    ),
    Detector(
        "cloud_key",  # Azure storage, service bus and event hub
        rf"(?<![{_ALNUM}])(?i:(?:storage)?account_?key|shared_?access_?key){_ASSIGN}[{_ALNUM}+/]{{42,86}}={{1,2}}",
        checks.named_secret,
        canonical=str,
    ),
    Detector(
        "cloud_key",  # a shared access signature of Azure
        rf"(?<![{_ALNUM}])sig=[{_ALNUM}%+/]{{40,128}}={{0,2}}",
        checks.named_secret,
        canonical=str,
    ),
    Detector(
        "cloud_key",  # a client secret of Entra ID
        rf"(?<![{_ALNUM}_~.-])[{_ALNUM}_~.-]{{3}}\dQ~[{_ALNUM}_~.-]{{31,34}}(?![{_ALNUM}_~-])",
        canonical=str,
    ),
    Detector(
        "email",
        rf"(?<![0-9{_MARKED}._%+'-])[0-9{_MARKED}._%+'-]+"
        rf"(?:@|%40|&#64;)(?:[0-9{_MARKED}-]+\.)+(?:[{_LETTER}]{{2,63}}|xn--[{_ALNUM}-]{{2,59}})(?![{_LETTER}])",
        checks.email,
        checks.address,
    ),
    Detector(
        "iban",
        rf"(?<![{_ALNUM}])[A-Za-z]{{2}}\d\d(?:{_GAP}[{_ALNUM}]){{11,29}}",
        checks.iban,
        _compact,
    ),
    Detector(
        "card",
        rf"(?<![.{_ALNUM}])\d(?:{_GAP}\d){{12,18}}(?:\.\d+)?(?![{_ALNUM}])",
        checks.card,
        checks.digits,
    ),
    Detector(
        "card",  # "No.4111…", where a dot alone would be a fraction's
        rf"(?<![{_ALNUM}])[A-Za-z]{{1,3}}\.\d(?:{_GAP}\d){{12,18}}(?:\.\d+)?(?![{_ALNUM}])",
        checks.card,
        checks.digits,
    ),
    Detector(
        "ssn",
        rf"(?<![{_ALNUM}{_HYPHEN}])\d{{3}}[{_HYPHEN}]\d\d[{_HYPHEN}]\d{{4}}(?![{_ALNUM}{_HYPHEN}])",
        checks.ssn,
        checks.digits,
    ),
    Detector(
        "ssn",
        rf"(?<![{_ALNUM}])(?i:ssn|social security (?:number|no\.?|#))(?: \(SSN\))?(?: is)?"
        rf"[\s:=#*|\"'`]{{1,6}}\d{{3}}[{_SPACE}{_HYPHEN}.]?\d\d[{_SPACE}{_HYPHEN}.]?\d{{4}}(?!\d)",
        checks.ssn,
        checks.digits,
    ),
    Detector(
        "ip",
        rf"(?<![.{_ALNUM}])\d{{1,3}}\.\d+\.\d+(?:\.\d+)+(?![{_ALNUM}])",
        checks.ipv4,
    ),
    Detector(
        "ip",
        rf"(?<![:.{_ALNUM}])[0-9A-Fa-f]{{0,4}}:[0-9A-Fa-f:]{{1,44}}(?:\.\d{{1,3}}){{0,3}}(?![{_ALNUM}])",
        checks.ipv6,
    ),
    Detector(
        "phone",
        rf"(?<![+{_ALNUM}])(?:[+＋][{_SPACE}]?|(?<![./{_HYPHEN}])00)\(?\d(?:(?:[{_SPACE}{_HYPHEN}.()]{{0,3}}|/)\d){{6,16}}(?!\d)",
        checks.international_phone,
        checks.digits,
    ),
    Detector(
        "phone",
        rf"(?<![+.{_HYPHEN}{_ALNUM}])(?:1[{_SPACE}.{_HYPHEN}])?"
        rf"(?:\([2-9]\d\d\)[{_SPACE}{_HYPHEN}]?[2-9]\d\d[{_SPACE}.{_HYPHEN}]?"
        rf"|[2-9]\d\d[{_SPACE}{_HYPHEN}][2-9]\d\d[{_HYPHEN}]|[2-9]\d\d\.[2-9]\d\d\.)"
        rf"\d{{4}}(?![{_ALNUM}])",
        checks.american_phone,
        checks.digits,
    ),
    Detector(
        "phone",
        rf"(?<![+./{_HYPHEN}{_ALNUM}])\(?0[1-9]\d{{0,4}}\)?[{_SPACE}{_HYPHEN}./]"
        rf"\d(?:[{_SPACE}{_HYPHEN}.]?\d){{5,9}}(?![{_ALNUM}])",
        checks.national_phone,
        checks.digits,
    ),
    Detector(
        "phone",  # China; Russia; Brazil
        rf"(?<![+./{_HYPHEN}{_ALNUM}])(?:1[3-9]\d[{_SPACE}{_HYPHEN}]\d{{4}}[{_SPACE}{_HYPHEN}]\d{{4}}"
        rf"|8[{_SPACE}{_HYPHEN}]?\(\d{{3}}\)[{_SPACE}]?\d{{3}}[{_HYPHEN}]\d\d[{_HYPHEN}]?\d\d"
        rf"|\(\d\d\)[{_SPACE}]?9?\d{{4}}[{_HYPHEN}]\d{{4}})(?![{_ALNUM}])",
        canonical=checks.digits,
    ),
    Detector(
        "phone",
        rf"(?<![{_ALNUM}])(?i:{_PHONE_WORD})(?i: ?(?:number|no|nr)\.?)?(?i: (?:is|at|me at|us at))?"
        rf"[\s:：.#=*|\"'`]{{0,6}}[+＋]?\(?\d(?:[{_APART}]{{0,2}}\d){{6,14}}(?![{_ALNUM}])",
        checks.named_phone,
        checks.digits,
    ),
)

NAMES = tuple(dict.fromkeys(detector.name for detector in DETECTORS))
