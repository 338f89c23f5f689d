"""What `scripts/deploy` says where it cannot even begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.conftest import ROOT


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ([], {}, "deploy: no usable AWS credentials (Unable to locate credentials)"),
        (["--profile", "nobody"], {}, "deploy: no usable AWS credentials (The config profile"),
        (
            [],
            {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"},
            "deploy: no AWS region; set AWS_REGION, or one in the profile",
        ),
        (
            [],
            {
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "x",
                "AWS_REGION": "moon-1",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            },
            "deploy: no AWS in the region moon-1 (Could not connect",
        ),
    ],
)
def test_it_says_in_one_line_what_is_missing(
    options: list[str], environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.deploy", *options],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AWS_EC2_METADATA_DISABLED": "true",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(said)
