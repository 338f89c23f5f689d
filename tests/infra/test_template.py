"""The template as a whole: as it is kept, and as cfn-lint wants it."""

import json
import subprocess
from pathlib import Path

import pytest

from infra import package
from tests.infra.conftest import EVERYTHING, ROOT, Template, synthesize
from tests.infra.snapshot import KEPT, text_of


def test_the_template_is_the_one_that_is_kept(template: Template) -> None:
    """`python -m tests.infra.snapshot` keeps a template that changed on purpose."""
    assert text_of(template) == KEPT.read_text()


@pytest.mark.e2e
def test_cfn_lint_finds_nothing(template: Template, bare: Template, tmp_path: Path) -> None:
    shifted = synthesize(**EVERYTHING, shift="canary", streamWarm=2, maxWriteUnits=1000)
    files = []
    for name, each in (("default", template), ("bare", bare), ("full", shifted)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(each))
    script = ROOT / "tests/infra/cfn_lint.py"
    done = subprocess.run(
        # W3005: the CDK says twice what depends on what.
        [package.uv(), "run", "--frozen", "--script", script, "-i", "W3005", "--", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
