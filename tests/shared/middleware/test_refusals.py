"""Refusals of callers that are known, as the audit hears of them."""

import random
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from shared.audit import Entry
from shared.audit.refusals import Refusals
from shared.audit.trail import Audit
from shared.authority import Caller
from shared.errors import (
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OriginNotAllowed,
    PolicyViolated,
    SluiceError,
    Unauthenticated,
    Unavailable,
)
from shared.identity import Identity
from shared.middleware.refusals import Refused
from shared.tenants import Policy, Tenant
from tests.model_store import ModelStore

LIMIT = LimitExceeded("user-starts-per-minute", limit=3, window_s=60, retry_after_s=7)


class Stage:
    """An app that raises what it is told to, and the audit behind it."""

    def __init__(self, **policy: Any) -> None:
        self.store = ModelStore()
        self.error: SluiceError | None = None
        self.now_s = 1_800_000_000.0
        # The order of writers' names is the order of their chains.
        self.audit = Audit(self.store, now=self.now, randomness=random.Random(1).randbytes)
        self.app = Refused(self._serve, Refusals(self.audit, now=self.now))
        tenant = Tenant("demo", Policy.from_document(policy), False, bytes(32), 0, 0)
        identity = Identity("demo", "ada", credential="key:1")
        self.caller = Caller(identity, tenant, "192.0.2.77")

    def now(self) -> float:
        return self.now_s

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.error:
            raise self.error

    async def ask(self, error: SluiceError | None = None) -> None:
        self.error = error
        await self.app({"type": "http", "state": {"caller": self.caller}}, None, None)  # type: ignore[arg-type]

    def entries(self) -> list[Entry]:
        found = [i for key, i in self.store.items.items() if key[0] == "audit"]
        return [Entry.from_item(item) for item in found]


@pytest.mark.parametrize(
    ("error", "outcome", "policy"),
    [
        (Forbidden("no", scope="admin"), "forbidden", None),
        (OriginNotAllowed("no"), "origin-not-allowed", None),
        (LIMIT, "limit-exceeded", "user-starts-per-minute"),
        (PolicyViolated("words", field="messages"), "policy-violated", "words"),
    ],
)
async def test_a_refusal_is_told_and_goes_on_up(
    error: SluiceError, outcome: str, policy: str | None
) -> None:
    stage = Stage()
    with pytest.raises(type(error)):
        await stage.ask(error)
    (entry,) = stage.entries()
    assert (entry.event, entry.outcome) == ("refused", outcome)
    assert entry.details.get("policy") == policy
    assert entry.details["count"] == 1
    assert (entry.actor.user, entry.actor.credential) == ("ada", "key:1")
    assert entry.actor.address == "192.0.2.0/24"


@pytest.mark.parametrize(
    "error",
    [InvalidRequest("x"), NotFound("x"), Unauthenticated("x"), Unavailable("x"), SluiceError("x")],
)
async def test_what_is_wrong_or_missing_is_no_refusal(error: SluiceError) -> None:
    stage = Stage()
    with pytest.raises(type(error)):
        await stage.ask(error)
    assert stage.entries() == []


async def test_the_tenants_own_settings_hold() -> None:
    stage = Stage(addresses="none", audit_retention_days=7)
    with pytest.raises(LimitExceeded):
        await stage.ask(LIMIT)
    (entry,) = stage.entries()
    assert entry.actor.address is None
    assert entry.expires_at == int(stage.now_s) + 7 * 86400


async def test_a_storm_is_one_entry_a_minute_and_the_next_request_tells_it() -> None:
    stage = Stage()
    for _ in range(500):
        with pytest.raises(LimitExceeded):
            await stage.ask(LIMIT)
    assert [entry.details["count"] for entry in stage.entries()] == [1]
    stage.now_s += 61
    await stage.ask()
    assert [entry.details["count"] for entry in stage.entries()] == [1, 499]


async def test_what_goes_well_writes_nothing() -> None:
    stage = Stage()
    await stage.ask()
    assert stage.store.items == {}
