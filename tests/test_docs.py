"""The README tells the truth about what can be checked: errors, routes, context, bounds."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from functions import api, stream
from functions.wiring import Services
from shared import errors, follower, log, producer
from shared.dialects import native
from shared.errors import SluiceError
from shared.settings import Settings
from tests.model_store import ModelStore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "kind",
    [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, SluiceError)],
)
def test_every_error_is_in_the_table_with_its_status(kind: type[SluiceError]) -> None:
    rows = [line for line in README.splitlines() if f"`{kind.slug}`" in line.split(" | ")[0]]
    assert len(rows) == 1
    assert str(kind.status) in rows[0]


def test_every_route_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    routes: list[Route] = []

    def keep(given: list[Route], _: Services) -> Any:
        routes.extend(given)

    monkeypatch.setattr(api, "app", keep)
    monkeypatch.setattr(stream, "app", keep)
    services = Services.on(ModelStore(), Settings())

    async def launch(_: object) -> None: ...

    api.build(services, launch)
    stream.build(services)
    assert len(routes) >= 7
    for route in routes:
        path = re.escape(route.path.replace("{stream}", "{id}"))
        for method in (route.methods or set()) - {"HEAD"}:
            assert re.search(rf"\| `{method} {path}[`?]", README), (method, route.path)


def test_every_context_key_is_in_the_table() -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    for key in context:
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
        f"{producer.HELD_CHARS_MAX // 1024} Ki characters",
        f"with its text kept, {producer.DEADLINE_MARGIN_S:.0f} s before",
        f"kept for {log.RETENTION_S // 86400} days",
        f"`: hb` comes every {native.SILENCE_S_MAX:.0f} s",
    ],
)
def test_every_bound_is_the_one_in_the_code(said: str) -> None:
    assert said in " ".join(README.split())


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_leads_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()


def test_every_script_of_the_readme_is_there() -> None:
    for script in set(re.findall(r"scripts/\w+", README)):
        assert (ROOT / script).stat().st_mode & 0o100, script
