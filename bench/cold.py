"""From the start of a process to its first question for an event.

Each runs without the site packages of this environment (`-S`), with bytecode, from a folder as
Lambda would have it. The peers are what a plain function has: AWS's own runtime client with a
handler that does nothing, and the same with a DynamoDB client, without which no answer is kept.
"""

import asyncio
import sys
import time
from pathlib import Path
from statistics import median

from bench import package
from bench.parts import Bench, environment, process
from bench.rows import Row
from bench.runtime_api import RuntimeApi

HELLO = "awslambdaric, empty handler"
HELLO_DYNAMODB = "awslambdaric, boto3.client('dynamodb'), botocore untrimmed"
OURS = "the stream function"


async def measure(bench: Bench) -> list[Row]:
    bench.say("making the packages")
    function, plain = package.make(bench.folder / "packages")
    commands = {
        OURS: (function, ("shared.runtime", "functions.stream:create")),
        HELLO: (plain, ("awslambdaric", "hello.handler")),
        HELLO_DYNAMODB: (plain, ("awslambdaric", "hello_dynamodb.handler")),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    rounds = 2 if bench.quick else 11
    # One round more: the first finds the files not yet in memory.
    for number in range(rounds + 1):
        bench.say(f"round {number} of {rounds}")
        for name, (folder, module) in commands.items():
            taken = await _start(folder, *module)
            if number:
                times[name].append(taken)
    ours = median(times[OURS])
    what = "process start → first GET …/invocation/next, median"
    return [
        Row("cold", what, ours, "ms", peer, median(times[peer])) for peer in (HELLO_DYNAMODB, HELLO)
    ]


async def _start(folder: Path, *module: str) -> float:
    """One process, in ms."""
    async with RuntimeApi() as api:
        env = environment(
            PYTHONPATH=str(folder),
            AWS_LAMBDA_RUNTIME_API=api.address,
            LAMBDA_TASK_ROOT=str(folder),
        )
        began = time.monotonic_ns()
        with process(sys.executable, "-S", "-m", *module, cwd=folder, env=env):
            async with asyncio.timeout(20):
                await api.idle.wait()
        return (api.asked_ns - began) / 1e6
