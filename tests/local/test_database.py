"""Where the database is, how it is locked, and which credentials its clients get."""

import fcntl
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from local import database, dynoxide
from local.errors import Failed
from shared.settings import Settings


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def fake_dynoxide(root: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a script where npm puts dynoxide."""
    monkeypatch.setattr(dynoxide, "ROOT", root)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    program = root / "node_modules/@dynoxide/linux-x64/dynoxide"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_no_dynoxide_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynoxide, "ROOT", tmp_path)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(Failed, match=r"no dynoxide for linux-riscv64.*SLUICE_DYNAMODB_ENDPOINT"):
        dynoxide.find()


def test_a_dynoxide_that_does_not_start_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dynoxide(tmp_path, monkeypatch, "echo first >&2; echo 'the last line' >&2; exit 1")
    with pytest.raises(Failed, match="dynoxide did not start: the last line"):
        dynoxide.dynoxide(None).__enter__()


def test_a_file_in_use_tells_where_its_database_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dynoxide(tmp_path, monkeypatch, "exit 1")
    monkeypatch.setattr(dynoxide, "LOCK_S", 0.1)
    db = tmp_path / "dev.db"
    with (tmp_path / "dev.db.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("http://127.0.0.1:1")
        other.flush()
        with pytest.raises(dynoxide.InUse, match="in use by another run") as used:
            dynoxide.dynoxide(db).__enter__()
    assert used.value.endpoint == "http://127.0.0.1:1"


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dynoxide(tmp_path, monkeypatch, "exit 1")
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match=r"dev\.db cannot be written: "):
        dynoxide.dynoxide(tmp_path / "file" / "dev.db").__enter__()


def test_an_endpoint_of_the_settings_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "dynoxide", None)
    with database.endpoint(Settings(dynamodb_endpoint="http://db:8000"), None) as endpoint:
        assert endpoint == "http://db:8000"


@pytest.mark.usefixtures("no_credentials")
def test_a_database_that_does_not_answer() -> None:
    settings = Settings(dynamodb_endpoint="http://127.0.0.1:9")
    with pytest.raises(Failed, match=r"no DynamoDB answers at http://127\.0\.0\.1:9"):
        database.connect(settings, own=False)


@pytest.mark.usefixtures("no_credentials")
def test_only_a_database_of_this_machine_is_given_dummy_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = Settings(dynamodb_endpoint="http://db.test:9")
    with pytest.raises(Failed, match="NoCredentialsError"):
        database.connect(settings, own=False)


@pytest.mark.usefixtures("no_credentials")
def test_which_credentials_a_client_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str | None] = []
    monkeypatch.setattr(
        database, "_create_tables", lambda _: used.append(os.environ.get("AWS_ACCESS_KEY_ID"))
    )
    settings = Settings(dynamodb_endpoint="http://localhost:9")
    database.connect(settings, own=False)
    assert os.environ.get("AWS_ACCESS_KEY_ID") is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    database.connect(settings, own=False)
    database.connect(settings, own=True)
    database.connect(replace(settings, dynamodb_endpoint="http://db.test:9"), own=False)
    assert used == ["local", "mine", "local", "mine"]
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.8.8.8", True),
        ("http://[::1]:8000", True),
        ("http://localhost:8000", True),
        ("http://dynamodb.localhost:8000", True),
        ("http://10.0.0.1:8000", False),
        ("https://dynamodb.us-east-1.amazonaws.com", False),
        ("nonsense", False),
    ],
)
def test_what_is_this_machine(address: str, expected: bool) -> None:
    assert database._is_loopback(address) is expected
