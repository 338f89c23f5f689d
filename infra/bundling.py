"""The package that every function runs: dependencies, sources and bytecode, made without Docker.

It needs `uv`, Node and the installed npm packages. From the network it takes the wheels that the
lockfile names, and nothing once uv has them in its cache.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.13"
SOURCES = ("functions", "shared")
WRAPPER = "shared/runtime/wrapper"

# botocore describes 400 services in 25 MB and lists their folders at each cold start.
SERVICES = frozenset({"bedrock-runtime", "dynamodb", "lambda", "secretsmanager", "sts"})
# Names the installer's machine or is written differently by each one.
UNWANTED = (
    "bin",
    ".lock",
    "boto3/data",
    "boto3/examples",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    "**/__pycache__",
)


class BundlingError(RuntimeError):
    """The package cannot be made; the text says what is missing."""


def code() -> lambda_.Code:
    """The package as an asset that is made only when a stack is really synthesized."""
    return lambda_.Code.from_asset(
        str(ROOT / "functions"),
        # By content: the same sources are the same asset on every machine.
        asset_hash_type=AssetHashType.OUTPUT,
        bundling=BundlingOptions(
            image=DockerImage.from_registry("docker-is-not-used"), local=_Local()
        ),
    )


@jsii.implements(ILocalBundling)
class _Local:
    def try_bundle(self, output_dir: str, *_options: Any, **_more: Any) -> bool:
        try:
            bundle(Path(output_dir))
        except BundlingError as wrong:
            # An exception would come back through Node as a page of two languages' frames.
            sys.exit(f"bundling: {wrong}")
        return True


def bundle(folder: Path) -> None:
    """Fill an empty folder with the package."""
    _install(folder)
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    if not os.access(folder / WRAPPER, os.X_OK):
        raise BundlingError(f"{WRAPPER} is missing or not executable")
    for path in _unwanted(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _run("node", str(ROOT / "infra" / "compile.mjs"), str(folder), PYTHON)
    for path in folder.rglob("*"):
        # Lambda runs as another user, whatever the umask of the machine that deploys.
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _install(folder: Path) -> None:
    """Put what the lockfile says a function needs into the folder, for Lambda's platform."""
    with tempfile.TemporaryDirectory() as scratch:
        requirements = str(Path(scratch) / "requirements.txt")
        _run(
            *(uv(), "export", "--quiet", "--frozen", "--project", str(ROOT)),
            *("--no-default-groups", "--no-emit-project", "--no-annotate", "--no-header"),
            *("--format", "requirements.txt", "--output-file", requirements),
        )
        _run(
            *(uv(), "pip", "install", "--quiet", "--requirements", requirements),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--target", str(folder), "--link-mode", "copy"),
            *("--python", sys.executable, "--no-python-downloads"),
            *("--python-platform", "aarch64-manylinux2014", "--python-version", PYTHON),
        )


def _unwanted(folder: Path) -> Iterator[Path]:
    for pattern in UNWANTED:
        yield from list(folder.glob(pattern))
    for path in (folder / "botocore" / "data").iterdir():
        if path.is_dir() and path.name not in SERVICES:
            yield path


def uv() -> str:
    """The machine's own `uv`, or the one that `scripts/install` puts beside the checkout."""
    return shutil.which("uv") or str(ROOT / ".sluice" / "tools" / "bin" / "uv")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - no shell; every word is ours
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise BundlingError(f"{command[0]} is not installed: run scripts/install") from None
    if done.returncode != 0:
        raise BundlingError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
