"""The package: complete, lean, compiled for its Python, and the same wherever it is made."""

import _imp
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from aws_cdk import FileSystem

from infra import package as packaging
from tests.infra.conftest import ROOT

# How a file for CPython 3.13 begins, and the flag for "never compare it with its source".
MAGIC_313 = (3571).to_bytes(2, "little") + b"\r\n"
UNCHECKED_HASH = (1).to_bytes(4, "little")


def test_it_is_the_same_in_another_folder(package: Path, tmp_path: Path) -> None:
    packaging.bundle(tmp_path)
    assert FileSystem.fingerprint(str(tmp_path)) == FileSystem.fingerprint(str(package))


def test_it_holds_what_a_function_needs_and_nothing_of_the_groups(package: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    held = {path.name.partition("-")[0] for path in package.glob("*.dist-info")}

    def names(requirements: list[object]) -> set[str]:
        return {
            re.split(r"[^\w.-]", requirement)[0].lower().replace("-", "_")
            for requirement in requirements
            if isinstance(requirement, str)
        }

    assert names(project["project"]["dependencies"]) <= held
    for group in project["dependency-groups"].values():
        assert not names(group) & held
    # Spans are told without one.
    assert not [name for name in held if name.startswith("opentelemetry")]


def test_what_is_made_for_one_processor_is_for_lambda_s(package: Path) -> None:
    """It cannot be tried here: only the checking of tokens may need it, and no cold start."""
    native = {
        path.relative_to(package).parts[0].partition(".")[0]: path for path in package.rglob("*.so")
    }
    assert set(native) == {"_cffi_backend", "cryptography"}
    for path in native.values():
        # ELF's e_machine: 183 is AArch64.
        assert path.read_bytes()[18:20] == (183).to_bytes(2, "little"), path


def test_it_holds_our_sources_but_not_what_only_the_checkout_needs(package: Path) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for name in packaging.SOURCES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in ours if (package / name).is_file()} == ours
    assert not [name for name in ("tests", "infra", "local", "bin") if (package / name).exists()]


def test_every_source_is_compiled_for_the_python_of_the_functions(package: Path) -> None:
    sources = list(package.rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        head = compiled.read_bytes()[:16]
        assert head[:4] == MAGIC_313, compiled
        assert head[4:8] == UNCHECKED_HASH, compiled
        # The hash is keyed by the magic number, so `importlib.util` would give our own Python's.
        key = int.from_bytes(MAGIC_313, "little")
        assert head[8:] == _imp.source_hash(key, source.read_bytes()), compiled
    settings = package / "shared" / "__pycache__" / "settings.cpython-313.pyc"
    assert b"/var/task/shared/settings.py" in settings.read_bytes(), "where a traceback looks"


def test_modes_suit_another_user(package: Path) -> None:
    assert os.access(package / packaging.WRAPPER, os.X_OK)
    for path in package.rglob("*"):
        executable = path.is_dir() or path == package / packaging.WRAPPER
        assert executable or path.stat().st_mode & 0o777 in (0o644, 0o755), path
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_it_stays_far_below_the_limit_of_250_mb(package: Path) -> None:
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    assert size < 40_000_000


def test_the_pruned_sdk_still_makes_every_client_in_use(package: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(package)!r})
import aws_lambda_powertools, boto3, botocore, httpx, mangum, starlette.applications
assert botocore.__file__.startswith({str(package)!r})
for service in {sorted(packaging.SERVICES)!r}:
    client = boto3.client(service, region_name="eu-west-1",
                          aws_access_key_id="x", aws_secret_access_key="x")
    assert client.meta.endpoint_url.startswith("https://"), service
boto3.client("dynamodb", region_name="eu-west-1").get_paginator("query")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_wrapper_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "_install", lambda folder: None)
    monkeypatch.setattr(packaging, "WRAPPER", "shared/runtime/nowhere")
    with pytest.raises(packaging.PackageError, match="nowhere is missing or not executable"):
        packaging.bundle(tmp_path)


def test_a_missing_tool_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "uv", lambda: "no-such-tool")
    with pytest.raises(packaging.PackageError, match="no-such-tool is not installed"):
        packaging.bundle(tmp_path)
