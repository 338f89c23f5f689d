"""Functions behind a real Lambda Runtime API and function URL: cargo-lambda, without AWS or Rust.

    with Emulator({"stream": Function("functions.stream.create", processes=2)}) as emulator:
        httpx.get(emulator.url("stream") + "/healthz")

What differs from AWS: a URL has a path in front (the function does not see it), trailers are
dropped, CORS headers are added, a client that leaves cuts the function's connection, and requests
beyond the number of processes wait. Make one connection a request: a reused one stalls for 40 ms.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.local_run import free_port

ROOT = Path(__file__).parents[3]

_START_S = 20
_STOP_S = 5


@dataclass(frozen=True)
class Function:
    """A function of the emulator.

    `handler` is Lambda's dotted name of the app's factory, `processes` how many environments are
    there, `env` the function's variables (it sees none of ours), `task_root` the unpacked asset,
    `python` what runs it.
    """

    handler: str
    processes: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    task_root: Path = ROOT
    python: str = sys.executable


class Emulator:
    """Starts it all on entry, and leaves no process behind on exit.

    Skips the test, on entry, where cargo-lambda is not installed.
    """

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self.functions = functions
        self.processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._port = free_port()

    def url(self, function: str) -> str:
        """The function's URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}/lambda-url/{function}"

    def log(self, function: str) -> str:
        """Everything that the function's processes have printed."""
        return (self._folder / f"{function}.log").read_text()

    def add(self, function: str) -> None:
        """Start one more process of a function."""
        process = self._start_function(function, self.functions[function])
        self.processes[function].append(process)

    def __enter__(self) -> Self:
        binary = _binary()
        self._temporary = tempfile.TemporaryDirectory(prefix="emulator-")
        self._folder = Path(self._temporary.name)
        try:
            self._start_server(binary)
            for name, function in self.functions.items():
                self.processes[name] = [
                    self._start_function(name, function) for _ in range(function.processes)
                ]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The functions first: they would end in an error when their Runtime API goes away.
        for name in reversed(list(self.processes)):
            _stop(self.processes.pop(name))
        self._temporary.cleanup()

    def _start_server(self, binary: str) -> None:
        bins = "".join(f'[[bin]]\nname = "{n}"\npath = "{n}.rs"\n' for n in self.functions)
        (self._folder / "Cargo.toml").write_text(
            f'[package]\nname = "functions"\nversion = "0.0.0"\n{bins}'
        )
        # The emulator asks Cargo which functions there are; this Cargo knows nothing else.
        cargo = self._folder / "cargo"
        metadata = json.dumps(_metadata(self._folder, list(self.functions)))
        cargo.write_text(f"#!/bin/sh\ncat <<'END'\n{metadata}\nEND\n")
        cargo.chmod(0o755)
        server = self._spawn(
            "emulator",
            [
                *(binary, "lambda", "watch", "--only-lambda-apis"),
                *("-A", "127.0.0.1", "-P", str(self._port)),
            ],
            cwd=self._folder,
            env={"CARGO": str(cargo), "HOME": str(self._folder), "PATH": "/usr/bin:/bin"},
        )
        self.processes["emulator"] = [server]
        deadline = time.monotonic() + _START_S
        while not _listening(self._port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"cargo-lambda did not start:\n{self.log('emulator')}")
            time.sleep(0.02)

    def _start_function(self, name: str, function: Function) -> subprocess.Popen[bytes]:
        wrapper = function.task_root / "shared/runtime/wrapper"
        # As Lambda calls it; the bootstrap that it names is never opened.
        return self._spawn(
            name,
            [str(wrapper), function.python, "/var/runtime/bootstrap.py"],
            cwd=function.task_root,
            env={
                "PATH": "/usr/bin:/bin",
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._port}/.rt/{name}",
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "AWS_LAMBDA_FUNCTION_NAME": name,
                "AWS_REGION": "us-east-1",
                "LAMBDA_TASK_ROOT": str(function.task_root),
                "_HANDLER": function.handler,
                **function.env,
            },
        )

    def _spawn(
        self, log: str, command: list[str], cwd: Path, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{log}.log").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, to stop it with its children
            )


def _binary() -> str:
    scripts = sysconfig.get_path("scripts")
    binary = shutil.which("cargo-lambda", path=os.pathsep.join([scripts, os.environ["PATH"]]))
    if binary is None:
        pytest.skip("cargo-lambda is not installed; it is in the dependency group `test`")
    return binary


def _metadata(folder: Path, functions: list[str]) -> object:
    """What `cargo metadata` prints for our Cargo.toml, reduced to what is read of it."""
    identity = f"path+file://{folder}#functions@0.0.0"
    targets = [
        {"kind": ["bin"], "crate_types": ["bin"], "name": name, "src_path": f"{folder}/{name}.rs"}
        for name in functions
    ]
    package = {
        "name": "functions",
        "version": "0.0.0",
        "id": identity,
        "dependencies": [],
        "targets": targets,
        "features": {},
        "manifest_path": f"{folder}/Cargo.toml",
    }
    return {
        "packages": [package],
        "workspace_members": [identity],
        "workspace_root": str(folder),
        "target_directory": f"{folder}/target",
        "resolve": None,
        "version": 1,
    }


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
