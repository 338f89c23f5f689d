"""CPU seconds and memory of one answer, in a process as Lambda runs it.

The floor is the same process with the passthrough in the place of our app. A first short answer of
each is not counted: it makes connections and looks the key up.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from bench import package
from bench.parts import Bench, cpu_s, environment, peak_mb, process
from bench.rows import Row
from bench.runtime_api import RuntimeApi, post_event

FLOOR = "passthrough without a log or AWS"


class _Function:
    """A function's process and the Runtime API that it is at."""

    def __init__(self, api: RuntimeApi, pid: int) -> None:
        self._api = api
        self.pid = pid

    async def answer(self, query: str) -> float:
        """CPU milliseconds of one answer, from taking its event to asking for the next."""
        await self._api.idle.wait()
        before = cpu_s(self.pid)
        body = await self._api.invoke(post_event(f"demo?{query}"))
        if b"event: closed" not in body or b'"failed"' in body:
            raise RuntimeError(f"no whole answer: {body[-300:].decode()}")
        return (cpu_s(self.pid) - before) * 1000


async def measure(bench: Bench) -> list[Row]:
    folder = package.make(bench.folder / "packages").function
    tokens = 50 if bench.quick else 500
    plans = {"50 tokens/s": ("&rate=50", 1 if bench.quick else 2), "no pace": ("&rate=0", 5)}
    rows = []
    async with (
        _function(bench, folder, "functions.stream:create") as ours,
        _function(bench, folder, "bench.floor:create") as floor,
    ):
        for function in (ours, floor):
            await function.answer("tokens=20&rate=100&ttft=0")
        for name, (rate, rounds) in plans.items():
            taken: dict[int, list[float]] = {ours.pid: [], floor.pid: []}
            for number in range(rounds):
                bench.say(f"{name}, round {number + 1} of {rounds}")
                for function in (floor, ours):
                    query = f"tokens={tokens}{rate}&ttft=0"
                    taken[function.pid].append(await function.answer(query))
            what = f"CPU of an answer, {tokens} tokens, {name}"
            value, peer = median(taken[ours.pid]), median(taken[floor.pid])
            rows.append(Row("cpu", what, value, "ms", FLOOR, peer))
        peaks = peak_mb(ours.pid), peak_mb(floor.pid)
        rows.append(Row("cpu", "peak memory (VmHWM)", peaks[0], "MB", FLOOR, peaks[1]))
    return rows


@asynccontextmanager
async def _function(bench: Bench, folder: Path, app: str) -> AsyncIterator[_Function]:
    async with RuntimeApi() as api:
        env = environment(
            PYTHONPATH=str(folder),
            AWS_LAMBDA_RUNTIME_API=api.address,
            SLUICE_DYNAMODB_ENDPOINT=bench.endpoint,
        )
        command = (sys.executable, "-S", "-m", "shared.runtime", app)
        with process(*command, cwd=folder, env=env) as child:
            yield _Function(api, child.pid)
