"""The template of whoever changes nothing, as it is kept: a change of it shows in review.

`python -m tests.infra.snapshot` keeps it anew.
"""

import json
import re
from pathlib import Path

from tests.infra.conftest import Template, synthesize

KEPT = Path(__file__).with_name("template.json")
#: Of assets, and of versions and logical ids that depend on them.
_HASH = re.compile(r"[0-9a-f]{64}|(?<=CurrentVersion)\w{40,}")


def text_of(template: Template) -> str:
    """A template as text, without what changes with each line of the functions."""
    return _HASH.sub("HASH", json.dumps(template, indent=1, sort_keys=True)) + "\n"


if __name__ == "__main__":
    KEPT.write_text(text_of(synthesize()))
