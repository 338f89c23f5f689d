"""README and protocol tell the truth about what can be checked: errors, routes, bounds, tests."""

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from functions import api, stream, sweep
from functions.wiring import Services
from shared import errors, follower, held, idempotency, log, permit, producer, starting, takeover
from shared.dialects import native
from shared.errors import SluiceError
from shared.identity import SCOPES, keys
from shared.limits import Limits
from shared.metrics import LINES
from shared.records import Kind
from shared.settings import Settings
from shared.tenants import Policy
from tests.model_store import ModelStore
from tests.simulation.checks import CHECKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
METRICS = (ROOT / "docs/decisions/metrics.md").read_text()
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
SERVICES = Services.on(ModelStore(), Settings())
POLICY = Policy()


@pytest.mark.parametrize(
    "kind",
    [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, SluiceError)],
)
def test_every_error_is_in_the_table_with_its_status(kind: type[SluiceError]) -> None:
    rows = [line for line in README.splitlines() if f"`{kind.slug}`" in line.split(" | ")[0]]
    assert len(rows) == 1
    assert str(kind.status) in rows[0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (endpoint.method, endpoint.path)
        for endpoint in (*stream.endpoints(SERVICES), *api.endpoints(SERVICES))
    ],
)
def test_every_route_is_in_the_table(method: str, path: str) -> None:
    named = path.replace("{stream}", "{id}").replace(":path", "")
    assert re.search(rf"`{method} {re.escape(named)}[`?]", README)


def test_every_context_key_is_in_the_table() -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    for key in (*context, *context["defaults"]):
        assert key.startswith("@aws-cdk/") or f"`{key}`" in README, key


@pytest.mark.parametrize(
    "said",
    [
        f"body: {native.BODY_BYTES_MAX // 1024} KiB",
        f"1 to {native.MESSAGES_MAX} of",
        f"1 to {native.MAX_TOKENS_MAX:,}",
        f"up to {native.METADATA_MAX} strings",
        f"{native.LIMIT_MAX:,} and {follower.PAGE_CHARS_MAX // 1024} Ki characters",
        f"A list: {native.LIST_LIMIT_MAX}. A long poll: {native.WAIT_S_MAX} s",
        f"heartbeat every {log.HEARTBEAT_S:.0f} s; after {log.DEAD_AFTER_S:.0f} s",
        f"{held.HELD_CHARS_MAX // 1024} Ki characters",
        f"{producer.DEADLINE_MARGIN_S:.0f} s before the end of its invocation",
        f"after {takeover.HANDOVERS_MAX} of these",
        f"with its parent's: {starting.OPENED_BYTES_MAX // 1024} KiB",
        f"`{POLICY.retention_days}`, `{POLICY.audit_retention_days}`",
        f"idempotency keys for at least {({86400: 'one day'})[idempotency.RETENTION_S]}",
        f"is known everywhere within {keys.CACHE_S + permit.STALE_S:.0f} s",
        f"`expiring` event comes {permit.NOTICE_S:.0f} s ahead",
        f"`: hb` comes every {native.SILENCE_S_MAX:.0f} s",
    ],
)
def test_every_bound_is_the_one_in_the_code(said: str) -> None:
    assert said in " ".join(README.split())


def settings_told() -> dict[str, str]:
    """The settings of a tenant in the README, each with the default that it is said to have."""
    told: dict[str, str] = {}
    for line in README.partition("## Tenants")[2].partition("\n## ")[0].splitlines():
        if line.startswith("| `") and line.count("|") >= 4:
            names, default = line.split("|")[1:3]
            values = [value.strip().strip("`") for value in default.split(",")]
            listed = re.findall(r"`([a-z_.]+)[`.]", names)
            told |= dict(zip(listed, values * (len(listed) // len(values)), strict=True))
    return told


SETTINGS = [
    *((f"limits.{f.name}", getattr(POLICY.limits, f.name)) for f in fields(Limits)),
    *((f.name, getattr(POLICY, f.name)) for f in fields(Policy) if f.name != "limits"),
]


@pytest.mark.parametrize(("name", "default"), SETTINGS)
def test_every_setting_of_a_tenant_is_in_the_table_with_its_default(
    name: str, default: object
) -> None:
    told = settings_told().get(name)
    plain = isinstance(default, int | str)
    assert told == str(default) if plain else told in ("none", "all")


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_every_scope_is_named(scope: str) -> None:
    assert f"`{scope}`" in README


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_leads_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()


def _told(title: str) -> str:
    """One part of the protocol's page."""
    return PROTOCOL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_protocol_tells_of_every_kind_of_record() -> None:
    assert set(re.findall(r"^\| `(\w+)`", _told("Records"), re.MULTILINE)) == set(Kind)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, getattr(log, name)) for name in ("HEARTBEAT_S", "DEAD_AFTER_S")),
        *((name, getattr(log, name)) for name in ("VACANT_S", "PAUSE_S")),
        *((name, getattr(producer, name)) for name in ("STORE_BUDGET_S", "DEADLINE_MARGIN_S")),
        ("SHUTDOWN_S", producer.SHUTDOWN_S),
        ("YIELD_S", producer.YIELD_S),
        ("FOLLOW_MARGIN_S", stream.FOLLOW_MARGIN_S),
        ("EVERY_S", sweep.EVERY_S),
        *((name, getattr(takeover, name)) for name in ("EXPIRY_MARGIN_S", "HANDOVERS_MAX")),
        ("UNFILLED_MAX", takeover.UNFILLED_MAX),
        ("PARKED_RETRY_MS", stream.PARKED_RETRY_MS / 1000),
    ],
)
def test_the_protocol_s_times_are_those_of_the_code(name: str, value: float) -> None:
    (row,) = (line for line in _told("Times").splitlines() if f"`{name}`" in line)
    _, _, told, where, _ = row.split("|")
    assert told.strip() in (f"{value:g} s", str(value))
    assert f"{name} =" in (ROOT / where.split("`")[3]).read_text()


def test_the_protocol_names_the_tenant_s_settings_with_their_defaults() -> None:
    assert f"| {POLICY.takeovers}, {POLICY.pause_s} s | `takeovers`, `pause_s`" in _told("Times")


def test_who_holds_what_the_protocol_says_is_there() -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PROTOCOL)
    assert named
    assert [name for name in named if f"def {name}(" not in written] == []
    checks = re.findall(r"`(\w+)`", "".join(re.findall(r"\|[^|]*\|\n", _told("What always holds"))))
    assert checks
    assert [name for name in checks if name not in CHECKS] == []


def test_every_metric_is_on_its_page_with_its_unit_and_dimensions() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \| ([^|]+) \| ([^|]+) \|", METRICS, re.MULTILINE)
    told = {name: (unit, by) for name, unit, by in rows}
    by = {line: ", ".join("×".join(f"`{n}`" for n in names) for names in line.by) for line in LINES}
    assert told == {m.name: (m.unit, by[line]) for line in LINES for m in line.metrics}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_script_of_the_readme_is_there() -> None:
    for script in set(re.findall(r"scripts/\w+", README)):
        assert (ROOT / script).stat().st_mode & 0o100, script
