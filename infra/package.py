"""The package that every function runs: dependencies, sources and bytecode, made without Docker;
and the page.

It needs `uv`, Node and the installed npm packages. From the network it takes the wheels that the
lockfile names, and nothing once uv has them in its cache. Nothing here needs the CDK.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


class PackageError(RuntimeError):
    """The package cannot be made; the text says what is missing."""


def bundle(folder: Path) -> None:
    """Fill an empty folder with the package."""
    _install(folder)
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    if not os.access(folder / WRAPPER, os.X_OK):
        raise PackageError(f"{WRAPPER} is missing or not executable")
    prune(folder)
    _run("node", str(ROOT / "infra" / "compile.mjs"), str(folder), PYTHON)
    for path in folder.rglob("*"):
        # Lambda runs as another user, whatever the umask of the machine that deploys.
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def build_page(folder: Path) -> None:
    """Fill an empty folder with the page's files."""
    web = ROOT / "web"
    if not (web / "build.mjs").is_file():
        raise PackageError(
            "web/build.mjs, which makes the page, is missing; -c edge=none needs none"
        )
    _run("node", str(web / "build.mjs"))
    shutil.copytree(web / "dist", folder, dirs_exist_ok=True)


def prune(folder: Path) -> None:
    """Remove from an installed package what no function reads."""
    for path in _unwanted(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _trim_endpoints(folder / "botocore" / "data" / "endpoints.json")


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


def _trim_endpoints(file: Path) -> None:
    """Leave out where other services are: every cold start parses this file, 1.3 MB of it."""
    known = json.loads(file.read_text())
    for partition in known["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services if name in SERVICES}
    file.write_text(json.dumps(known, separators=(",", ":")))


def uv() -> str:
    """The machine's own `uv`, or the one that `scripts/install` puts beside the checkout."""
    return shutil.which("uv") or str(ROOT / ".sluice" / "tools" / "bin" / "uv")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - no shell; every word is ours
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise PackageError(f"{command[0]} is not installed: run scripts/install") from None
    if done.returncode != 0:
        raise PackageError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
