"""The house as it is meant: which way the arrows point, and what a cold start may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "functions", "infra", "local", "shared", "tests")

#: Who may import whom, by the first part of a module's name.
ALLOWED = {
    "shared": {"shared"},
    "functions": {"functions", "shared"},
    "infra": {"infra", "shared"},
    "local": {"local", "functions", "shared"},
}


#: Within `shared`: a module may import only what stands before it.
LAYERS = (
    *("settings", "errors", "fields", "schema", "logger", "trace", "spans", "metrics", "elapsed"),
    *(
        "records",
        "table",
        "live",
        "pulse",
        "pacing",
        "experiment",
        "identity",
        "redaction",
        "origins",
    ),
    *("breaker", "models", "held", "limits", "tenants", "audit", "authority", "permit", "quotas"),
    *("seats", "log", "idempotency", "past", "lifecycle", "takeover", "follower", "reading"),
    *("reception", "answer", "producer", "steering", "starting", "erasure", "export"),
    *("administration", "dialects", "middleware"),
)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in PACKAGES:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows_between_packages_point_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] in ALLOWED[package], f"{path} imports {name}"


def test_arrows_within_shared_point_one_way() -> None:
    for path in (ROOT / "shared").rglob("*.py"):
        layer = path.relative_to(ROOT / "shared").parts[0].removesuffix(".py")
        if layer in ("__init__", "runtime"):
            continue
        for name in imports(path):
            imported = name.split(".")[1]
            assert LAYERS.index(imported) <= LAYERS.index(layer), f"{path} imports {name}"


def test_the_runtime_knows_nothing_of_sluice() -> None:
    for path in (ROOT / "shared" / "runtime").rglob("*.py"):
        assert all(name.startswith("shared.runtime") for name in imports(path)), path


def test_only_the_table_talks_to_dynamodb() -> None:
    for package in ("shared", "functions"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "table.py":
                assert '"dynamodb"' not in path.read_text(), path


@pytest.mark.parametrize("function", ["stream", "api", "produce", "sweep"])
def test_a_cold_start_imports_nothing_heavy(function: str) -> None:
    """Only botocore's own weight is paid before the first request."""
    code = f"import functions.{function}, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    for heavy in (
        *("httpx", "boto3", "pydantic", "uvicorn", "aws_cdk", "mangum"),
        *("jwt", "cryptography", "itsdangerous"),
        # Of clients and of the local run alone.
        *("sluice_client", "local", "prometheus_client", "rich", "opentelemetry"),
        "functions.otlp",
    ):
        assert heavy not in loaded
