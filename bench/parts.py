"""The processes of a run: the database, servers, functions. Each ends with its `with` block."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import KEY, request
from bench.counting import Counts
from local.database import connect
from local.dynoxide import dynoxide
from shared.administration import Administration
from shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
TENANT = "bench"


@dataclass(frozen=True, slots=True)
class Bench:
    """What a section is given. `quick` asks for a run that only shows that everything works."""

    endpoint: str
    folder: Path
    quick: bool

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    pid: int

    async def counts(self) -> Counts:
        """What its store was asked since the last time."""
        return Counts.from_json(await (await request(self.port, "GET", "/counts")).json())


@contextmanager
def bench(*, quick: bool) -> Iterator[Bench]:
    """A database on a file, with the tables and one tenant's key, and a folder for the run."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        folder = Path(scratch)
        with dynoxide(folder / "bench.db") as endpoint:
            store = connect(Settings(dynamodb_endpoint=endpoint), own=True)
            asyncio.run(Administration(store).ensure(TENANT, KEY))
            yield Bench(endpoint, folder, quick)


@contextmanager
def server(bench: Bench, role: str) -> Iterator[Server]:
    """A process of `bench.serve`. Who connects before it is up waits in the socket's queue."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        fd = listening.fileno()
        command = (sys.executable, "-m", "bench.serve", role, str(fd), bench.endpoint)
        with process(*command, fds=(fd,)) as child:
            yield Server(listening.getsockname()[1], child.pid)


@contextmanager
def process(
    *command: str, fds: tuple[int, ...] = (), **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=fds,
        **{"cwd": ROOT, "env": environment(), **more},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def environment(**more: str) -> Mapping[str, str]:
    """What a function finds on Lambda, as far as ours and botocore read it."""
    return {
        "PATH": os.environ["PATH"],
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, to the nanosecond, with those of threads that ended.

    This is the clock that clock_getcpuclockid(3) names; /proc counts in hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


def peak_mb(pid: int) -> float:
    """The most memory that a process has held so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
