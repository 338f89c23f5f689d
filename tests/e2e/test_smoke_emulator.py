"""`sluice smoke` on the `stream` function as Lambda runs it: cargo-lambda plays Lambda.

All else is at the local run, on the same tables, as a deployment without an edge has two addresses.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping

import pytest

from local.trials import TRIALS
from tests.e2e.emulator import Emulator, Function
from tests.e2e.fleet import Fleet
from tests.e2e.local_run import SLUICE, LocalRun

pytestmark = pytest.mark.e2e


def smoke(url: str, api: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SLUICE, "smoke", url, "--api", api, "--json"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


async def test_the_function_does_what_it_must(endpoint: str) -> None:
    here = {"SLUICE_DYNAMODB_ENDPOINT": endpoint}
    async with Fleet(endpoint, 1) as launched:
        function = Function("functions.stream.create", processes=3, env=launched.env)
        with LocalRun(env=here) as run, Emulator({"stream": function}) as emulator:
            done = await asyncio.to_thread(smoke, emulator.url("stream"), run.url, here)
    outcomes = {one["trial"]: one for one in json.loads(done.stdout)}
    # The emulator lets pages of any origin call, whatever the function says.
    assert outcomes.pop("pages may call")["outcome"] == "missed"
    assert [one for one in outcomes.values() if one["outcome"] != "ok"] == []
    assert len(outcomes) == len(TRIALS) - 1
