"""The local run as a process of its own, and a way to it that breaks off."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from local import dynoxide
from local.errors import Failed

ROOT = Path(__file__).resolve().parent.parent.parent
SLUICE = Path(sys.executable).with_name("sluice")
HOST = "127.0.0.1"
HEADERS = {"Authorization": "Bearer demo"}
START_S = 20.0


class LocalRun:
    """One `sluice dev` with these options; `with` starts it and ends it.

    `start` after `stop` or `kill` runs it again, on the same port.
    """

    def __init__(self, *options: str, env: Mapping[str, str] | None = None) -> None:
        self._options = options
        self._env = {**os.environ, **(env or {})}
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.client = httpx.Client(base_url=self.url, headers=HEADERS, timeout=30)
        # Not pipes: nobody reads along, and a full one would stop the server.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> Self:
        try:
            if not self._env.get("SLUICE_DYNAMODB_ENDPOINT"):
                needs_dynoxide()
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self._close()

    def _close(self) -> None:
        for part in (self.client, self._out, self._err):
            part.close()

    def start(self) -> None:
        """Run until it is ready."""
        for file in (self._out, self._err):
            file.seek(0)
            file.truncate()
        self.process = subprocess.Popen(
            [SLUICE, "dev", "--port", str(self.port), *self._options],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            cwd=ROOT,
            env=self._env,
        )
        give_up = time.monotonic() + START_S
        while "Sluice is ready" not in self.out():
            assert self.process.poll() is None, self.err()
            assert time.monotonic() < give_up, "the local run did not get ready"
            time.sleep(0.02)

    def out(self) -> str:
        return _content(self._out)

    def err(self) -> str:
        return _content(self._err)

    def stop(self, how: int = signal.SIGINT) -> int:
        """Have it stop by itself; returns its exit code."""
        self.process.send_signal(how)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def children(self) -> list[int]:
        return children(self.process.pid)

    def begin(self, model: str, prompt: str = "Hello") -> str:
        """Start a stream that nobody waits for; returns its id."""
        reply = self.client.post(
            "/v1/streams", json=body(model, prompt), headers={"Prefer": "respond-async"}
        )
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def newest(self) -> dict[str, Any]:
        """The summary of the newest stream."""
        found: dict[str, Any] = self.client.get("/v1/streams").json()["streams"][0]
        return found

    def text(self, stream: str) -> str:
        """What the log holds of a stream, by the polling fallback."""
        text, after, more = "", -1, True
        while more:
            page = self.client.get(f"/v1/streams/{stream}/chunks?after={after}").json()
            text += "".join(chunk["text"] for chunk in page["chunks"])
            more = page["next"] != after and not page["closed"]
            after = page["next"]
        return text


def body(model: str, prompt: str = "Hello") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


@contextmanager
def cutting_proxy(port: int, limits: Iterator[int]) -> Iterator[str]:
    """An address that leads to `port`, where each connection breaks after so many bytes back.

    Once the limits are used up, connections stay whole.
    """
    ready = threading.Event()
    done: list[Any] = []

    async def passing_on() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(_passing_on(port, limits), HOST, 0)
        done.extend((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(passing_on(),))
    thread.start()
    ready.wait(5)
    loop, stop, own_port = done
    try:
        yield f"http://{HOST}:{own_port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _passing_on(port: int, limits: Iterator[int]) -> Any:
    async def forwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = next(limits, 10**9)
        there, back = await asyncio.open_connection(HOST, port)
        requests = asyncio.create_task(forwards(reader, back))
        try:
            with suppress(OSError):
                while left > 0 and (data := await there.read(65536)):
                    writer.write(data[:left])
                    await writer.drain()
                    left -= len(data)
        finally:
            requests.cancel()
            await asyncio.gather(requests, return_exceptions=True)
            back.close()
            writer.close()

    return connection


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def needs_dynoxide() -> None:
    try:
        dynoxide.find()
    except Failed as failed:
        pytest.skip(str(failed))


def _content(file: Any) -> str:
    return os.pread(file.fileno(), 10**7, 0).decode()
