"""The package that is deployed, run by itself: no source and no dependency of this checkout."""

import asyncio
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from infra.package import PYTHON
from shared.administration import Administration
from shared.table import DynamoDB
from tests.e2e.emulator import Emulator, Function
from tests.functions.conftest import start_body
from tests.functions.test_stream import events

pytestmark = pytest.mark.e2e


def interpreter() -> str:
    """Lambda's version where this machine has it; else the Python below this environment."""
    for python in (f"python{PYTHON}", str(Path(sys.base_prefix) / "bin" / "python3")):
        with suppress(FileNotFoundError, subprocess.CalledProcessError):
            # Its own word for where it is: the function's process has another PATH.
            where = [python, "-c", "import sys; print(sys.executable)"]
            return subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    pytest.skip("no Python but that of this environment")


def test_the_package_streams_an_answer(
    package: Path, tmp_path: Path, endpoint: str, real: DynamoDB
) -> None:
    # Who runs may write: into a copy.
    shutil.copytree(package, tmp_path, dirs_exist_ok=True)
    asyncio.run(Administration(real).ensure("demo", "demo"))
    env = {
        "SLUICE_DYNAMODB_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        # Nothing from the user's own site packages either.
        "PYTHONNOUSERSITE": "1",
    }
    function = Function(
        "functions.stream.create", env=env, task_root=tmp_path, python=interpreter()
    )
    with Emulator({"stream": function}) as emulator:
        answer = httpx.post(
            emulator.url("stream") + "/v1/streams",
            json=start_body("demo?tokens=20&rate=0"),
            headers={"authorization": "Bearer demo"},
            timeout=30,
        )
    assert answer.status_code == 200, answer.text
    assert events(answer.text)[-1][2]["status"] == "completed"
