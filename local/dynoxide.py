"""dynoxide, a DynamoDB on SQLite: the database of a local run, in a process of its own."""

import ctypes
import fcntl
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from local.errors import Failed

ROOT = Path(__file__).resolve().parent.parent
START_S = 10.0
STOP_S = 3.0
#: How long a file may still be locked by a run that was just killed.
LOCK_S = 1.0

_PR_SET_PDEATHSIG = 1
_NPM_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}


class InUse(Failed):
    """Another run holds the file; `endpoint` is where its database answers, once it does."""

    def __init__(self, db: Path, endpoint: str) -> None:
        super().__init__(f"{db} is in use by another run; stop that, or take another file by --db")
        self.endpoint = endpoint


@contextmanager
def dynoxide(db: Path | None) -> Iterator[str]:
    """Run dynoxide on the file `db`, or in memory, and give its address. Raises `Failed`."""
    binary = find()
    if db is None:
        with _running(binary, []) as endpoint:
            yield endpoint
        return
    with (
        _locked(db) as lock,
        _running(binary, ["--db-path", str(db)], keep_open=(lock.fileno(),)) as endpoint,
    ):
        lock.write(endpoint)
        lock.flush()
        yield endpoint


def find() -> Path:
    """The program that npm has installed for this machine."""
    machine = platform.machine().lower()
    package = f"{sys.platform}-{_NPM_MACHINES.get(machine, machine)}"
    binary = ROOT / "node_modules" / "@dynoxide" / package / "dynoxide"
    if not binary.is_file():
        remedy = "run scripts/install, or " if package == "linux-x64" else ""
        raise Failed(
            f"there is no dynoxide for {package} in node_modules: {remedy}set "
            "SLUICE_DYNAMODB_ENDPOINT to another DynamoDB"
        )
    return binary


@contextmanager
def _running(binary: Path, options: list[str], *, keep_open: tuple[int, ...] = ()) -> Iterator[str]:
    port = _free_port()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own words, no shell
            [str(binary), "serve", "--host", "127.0.0.1", "--port", str(port), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=keep_open,
            # Ctrl-C goes to everything in the terminal's group, but we still have to write then.
            start_new_session=True,
            preexec_fn=_end_with_parent(),  # noqa: PLW1509 - no thread runs yet
        )
        try:
            _await_port(process, port, errors)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, errors: IO[str]) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    errors.seek(0)
    said = errors.read().strip().splitlines()
    raise Failed(f"dynoxide did not start: {said[-1] if said else 'it gave no reason'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _locked(db: Path) -> Iterator[IO[str]]:
    """Hold the lock beside a database file, which tells where the database answers.

    dynoxide inherits it: the file stays locked until the last process that may write it is gone.
    """
    try:
        db.parent.mkdir(parents=True, exist_ok=True)
        lock = db.with_name(f"{db.name}.lock").open("a+")
    except OSError as error:
        raise Failed(f"{db} cannot be written: {error.strerror}") from error
    with lock:
        give_up = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    lock.seek(0)
                    raise InUse(db, lock.read()) from None
                time.sleep(0.05)
        lock.truncate(0)
        yield lock


def _end_with_parent() -> Callable[[], Any] | None:
    """What the child runs first, so that even `kill -9` of its parent does not leave it behind."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
