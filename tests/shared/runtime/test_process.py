"""The process that Lambda starts: the wrapper, init, SnapStart."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.shared.runtime import events
from tests.shared.runtime.fake import PATIENCE_S, FakeRuntimeApi, Taker

ROOT = Path(__file__).parents[3]
WRAPPER = ROOT / "shared/runtime/wrapper"

APP = """
async def app(scope, receive, send):
    print("served", scope["path"])
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})

def create():
    return app
"""

HOOKS = """
from snapshot_restore_py import register_after_restore, register_before_snapshot
register_before_snapshot(print, "before", "first")
register_before_snapshot(print, "before", "second")
register_after_restore(print, "after", "first")
register_after_restore(print, "after", "second")
"""


def run(
    folder: Path, fake: FakeRuntimeApi, source: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a function with this source until the fake has no more events: that makes it exit 1."""
    (folder / "app.py").write_text(source)
    command = [sys.executable, "-m", "shared.runtime", "app:create"]
    return process(command, folder, fake, PYTHONPATH=str(ROOT), **env)


def process(
    command: list[str], folder: Path, fake: FakeRuntimeApi, **env: str
) -> subprocess.CompletedProcess[str]:
    with fake:
        return subprocess.run(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": fake.address, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )


def test_a_factory_is_loaded_and_its_app_served(tmp_path: Path) -> None:
    fake = FakeRuntimeApi(events.function_url(path="/a"), events.function_url(path="/b"))
    done = run(tmp_path, fake, APP)
    assert [response.body for response in fake.responses] == [b"hello"] * 2
    assert done.stdout == "served /a\nserved /b\n"
    assert done.returncode == 1


@pytest.mark.parametrize("path", ["LAMBDA_TASK_ROOT", "PYTHONPATH"])
def test_the_wrapper_takes_lambdas_python_and_handler(tmp_path: Path, path: str) -> None:
    asset = tmp_path / "asset"
    (asset / "package").mkdir(parents=True)
    (asset / "package/stream.py").write_text(APP)
    paths = {"LAMBDA_TASK_ROOT": str(ROOT), "PYTHONPATH": str(ROOT)} | {path: str(asset)}
    fake = FakeRuntimeApi(events.function_url())
    command = [str(WRAPPER), sys.executable, "/var/runtime/bootstrap.py"]
    process(command, tmp_path, fake, _HANDLER="package.stream.create", **paths)
    assert [response.body for response in fake.responses] == [b"hello"]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError", "nowhere_at_all"),
        ("x = 1", "AttributeError", "create"),
        ("def create(:", "SyntaxError", ""),
        ("def create(): raise ValueError('bad setting')", "ValueError", "bad setting"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_an_init_error(
    tmp_path: Path, source: str, kind: str, message: str
) -> None:
    fake = FakeRuntimeApi(events.function_url())
    done = run(tmp_path, fake, source)
    [error] = fake.posted
    assert error.path == "/2018-06-01/runtime/init/error"
    assert error.headers["Lambda-Runtime-Function-Error-Type"] == kind
    assert error.json["errorType"] == kind
    assert message in error.json["errorMessage"]
    assert any("shared/runtime/__main__.py" in place for place in error.json["stackTrace"])
    assert done.returncode == 1
    assert kind in done.stderr


def test_snapstart_runs_the_hooks_around_the_snapshot(tmp_path: Path) -> None:
    fake = FakeRuntimeApi(events.function_url())
    done = run(tmp_path, fake, HOOKS + APP, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    assert fake.timeline[:2] == ["GET /restore/next", "GET /invocation/next"]
    assert done.stdout.splitlines() == [
        "before second",
        "before first",
        "after first",
        "after second",
        "served /",
    ]


@pytest.mark.parametrize("kind", ["on-demand", "provisioned-concurrency"])
def test_without_snapstart_there_is_no_snapshot(tmp_path: Path, kind: str) -> None:
    fake = FakeRuntimeApi(events.function_url())
    done = run(tmp_path, fake, HOOKS + APP, AWS_LAMBDA_INITIALIZATION_TYPE=kind)
    assert "GET /restore/next" not in fake.timeline
    assert done.stdout.splitlines() == ["served /"]


@pytest.mark.parametrize(
    ("hook", "timeline", "kind"),
    [
        ("register_before_snapshot", ["POST /init/error"], "Runtime.BeforeSnapshotError"),
        (
            "register_after_restore",
            ["GET /restore/next", "POST /restore/error"],
            "Runtime.AfterRestoreError",
        ),
    ],
)
def test_a_hook_that_fails_ends_the_environment(
    tmp_path: Path, hook: str, timeline: list[str], kind: str
) -> None:
    source = f"from snapshot_restore_py import {hook}\n{hook}(int, 'no number')\n{APP}"
    fake = FakeRuntimeApi(events.function_url())
    done = run(tmp_path, fake, source, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    assert fake.timeline == timeline
    [error] = fake.errors
    assert error.headers["Lambda-Runtime-Function-Error-Type"] == kind
    assert error.json["errorType"] == kind
    assert "no number" in error.json["errorMessage"]
    assert done.returncode == 1


WORKING = """
import asyncio

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    try:
        await asyncio.sleep(60)
    finally:
        print("handed over")

def create():
    return app
"""


def test_told_to_stop_it_lets_its_app_put_its_work_down(tmp_path: Path) -> None:
    begun = threading.Event()
    # The prelude, the NULs behind it, and the first of the body.
    taker = Taker(on_frame=lambda number: begun.set() if number == 3 else None)
    with FakeRuntimeApi(events.function_url(), takers=[taker]) as fake:
        process = started(tmp_path, fake.address, WORKING)
        assert begun.wait(PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        told, wrong = process.communicate(timeout=PATIENCE_S)
    assert (told, process.returncode) == ("handed over\n", 0)
    assert "Traceback" not in wrong


def test_told_to_stop_while_it_waits_for_work_it_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = started(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}", WORKING)
        with silent.accept()[0] as asking:
            assert asking.recv(1000).startswith(b"GET")
            process.send_signal(signal.SIGTERM)
            _, wrong = process.communicate(timeout=PATIENCE_S)
    assert (wrong, process.returncode) == ("", 0)


def started(folder: Path, address: str, source: str) -> subprocess.Popen[str]:
    (folder / "app.py").write_text(source)
    return subprocess.Popen(
        [sys.executable, "-m", "shared.runtime", "app:create"],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "AWS_LAMBDA_RUNTIME_API": address,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_runtime_itself_imports_nothing_heavy() -> None:
    listing = subprocess.run(
        [sys.executable, "-c", "import sys, shared.runtime.__main__; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in listing.stdout.split()}
    assert "mangum" in loaded
    heavy = {"aws_lambda_powertools", "anyio", "boto3", "botocore", "httpx", "pydantic"}
    assert not loaded & (heavy | {"snapshot_restore_py", "starlette", "uvicorn"})
