"""`sluice tenant`."""

import asyncio
import io
import json
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from functions.wiring import Services
from shared.administration import Administration
from shared.audit import Actor, Event
from shared.audit.trail import Audit
from shared.errors import Unavailable
from shared.limits import DEFAULT_LIMITS
from shared.records import Kind
from shared.schema import STREAMS, TENANTS
from shared.settings import Settings
from shared.tenants import Policy, Tenant
from tests.local.conftest import Operator, began, work

DEFAULT = Policy().to_document()


def stored(sluice: Operator, name: str = "acme") -> Tenant:
    return asyncio.run(Administration(sluice.store).tenant(name))


def entries(sluice: Operator, chain: str = "tenant", tenant: str = "acme") -> list[Any]:
    page = Audit(sluice.store).page(tenant, start_ms=0, end_ms=10**14 - 1, chain=chain, limit=100)
    return list(asyncio.run(page).entries)


def test_a_tenant_with_the_defaults(sluice: Operator) -> None:
    said = sluice.done("tenant", "add", "acme")
    assert said.out == "The tenant acme is made, with the defaults.\n"
    assert stored(sluice).policy == Policy()


def test_a_tenant_of_its_own(sluice: Operator) -> None:
    said = sluice.done("tenant", "add", "acme", "limits.models=demo,openai/*", "shards=2")
    assert said.rows[1:] == [
        ["setting", "default", "here"],
        ["limits.models", "none", "demo, openai/*"],
        ["shards", "1", "2"],
    ]
    assert stored(sluice).policy == Policy(
        shards=2, limits=replace(DEFAULT_LIMITS, models=("demo", "openai/*"))
    )


def test_a_tenant_from_a_file(
    sluice: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "acme.json"
    file.write_text('{"shards": 3, "retention_days": 7}')
    assigned = ("retention_days=8", "limits.page=9")
    made = sluice.done("tenant", "add", "acme", *assigned, "--file", str(file), "--json").json
    assert made == {
        "tenant": "acme",
        "state": "active",
        "created_at": stored(sluice).created_at,
        "rev": 0,
        "settings": {
            **DEFAULT,
            "limits": DEFAULT["limits"] | {"page": 9},
            "shards": 3,
            "retention_days": 8,
        },
    }
    monkeypatch.setattr("sys.stdin", io.StringIO('{"shards": 4}'))
    set_ = sluice.done("tenant", "set", "acme", "--file", "-", "--json").json
    # What is not in the document has its default again.
    assert set_["changed"] == {
        "limits.page": {"before": 9, "after": 1000},
        "retention_days": {"before": 8, "after": 30},
        "shards": {"before": 3, "after": 4},
    }
    assert set_["settings"] == {**DEFAULT, "shards": 4}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON in UTF-8"),
        ("[1]", "is not a JSON object"),
        ('{"shard": 1}', "`shard` is not known here. Known: limits, "),
        ('{"limits": {"streams_at_once": 1.5}}', "not a fraction"),
    ],
)
def test_a_file_that_is_no_document(
    sluice: Operator, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "acme.json"
    file.write_text(content)
    failed = sluice("tenant", "add", "acme", "--file", str(file))
    assert failed.code == 1
    assert failed.err.startswith("sluice: ")
    assert said in failed.err
    assert not sluice.store.items


def test_a_file_that_is_not_there(sluice: Operator, tmp_path: Path) -> None:
    missing = str(tmp_path / "x.json")
    assert sluice("tenant", "add", "acme", "--file", missing).err == (
        f"sluice: {missing} cannot be read: No such file or directory\n"
    )


def test_what_changes_is_told(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme", "origins=https://a.test")
    said = sluice.done(
        *("tenant", "set", "acme", "limits.tokens_per_day=1000000"),
        *("origins+=https://b.test", "redaction.detectors.email=mask"),
    )
    assert said.rows == [
        ["setting", "before", "after"],
        ["limits.tokens_per_day", "none", "1,000,000"],
        ["redaction.detectors.email", "none", "mask"],
        ["origins", "https://a.test", "https://a.test, https://b.test"],
    ]
    assert said.err == "Everywhere within 30 s.\n"
    assert stored(sluice).policy.limits.tokens_per_day == 1_000_000
    assert stored(sluice).policy.origins == ("https://a.test", "https://b.test")


def test_options_may_stand_between_assignments(sluice: Operator) -> None:
    sluice.done("tenant", "add", "--json", "acme", "shards=2", "--stack", "Sluice", "limits.page=7")
    assert (stored(sluice).policy.shards, stored(sluice).policy.limits.page) == (2, 7)
    sluice.done("tenant", "set", "acme", "--json", "limits.page=8", "shards=3")
    assert (stored(sluice).policy.shards, stored(sluice).policy.limits.page) == (3, 8)


def test_a_change_that_changes_nothing(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme")
    said = sluice.done("tenant", "set", "acme", "limits.streams_at_once=100", "limits.models=none")
    assert said.out.startswith("Nothing changes")
    assert sluice.done("tenant", "set", "acme", "shards=1", "--json").json["changed"] == {}
    assert [entry.event for entry in entries(sluice)] == [Event.TENANT_ADDED]


def test_the_audit_names_what_was_changed(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme")
    sluice.done("tenant", "set", "acme", "user_limits.streams_at_once=2", "ticket_s=60")
    sluice.done("tenant", "set", "acme", "origins=https://a.test")
    told = [(e.event, e.details, e.actor) for e in entries(sluice)[1:]]
    assert told == [
        (Event.LIMITS_CHANGED, {"changed": "user_limits ticket_s"}, Actor(credential="operator")),
        (Event.TENANT_CHANGED, {"changed": "origins"}, Actor(credential="operator")),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tenant", "add", "Acme"], "a tenant's name has 1 to 63 of a-z"),
        (["tenant", "add", "acme"], "there is a tenant acme already"),
        (["tenant", "set", "acme", "shards=0"], "`shards` is 0; allowed are 1 to 64"),
        (["tenant", "set", "acme", "shard=1"], "no setting shard; did you mean shards?"),
        (["tenant", "set", "acne", "shards=2"], "there is no tenant acne; did you mean acme?"),
        (["tenant", "show", "zzz"], "there is no tenant zzz\n"),
        (["tenant", "show", "no\x1btenant"], r"there is no tenant no\x1btenant"),
        (["tenant", "suspend", "acm"], "did you mean acme?"),
        (["tenant", "remove", "acm", "--yes"], "did you mean acme?"),
        (["usage", "acm"], "did you mean acme?"),
        (["key", "list", "acm"], "did you mean acme?"),
        (["key", "revoke", "acm", "0"], "did you mean acme?"),
        (["audit", "show", "acm"], "did you mean acme?"),
        (["audit", "verify", "acm"], "did you mean acme?"),
        (["audit", "export", "acm"], "did you mean acme?"),
    ],
)
def test_what_fails_is_one_line_and_code_1(
    sluice: Operator, arguments: list[str], said: str
) -> None:
    sluice.done("tenant", "add", "acme")
    before = dict(sluice.store.items)
    failed = sluice(*arguments)
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("sluice: ")
    assert failed.err.count("\n") == 1
    assert said in failed.err
    assert sluice.store.items == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tenant"], "COMMAND"),
        (["tenant", "set", "acme"], "say what to set"),
        (["tenant", "set", "acme", "shards"], "'shards' is not like NAME=VALUE"),
        (["tenant", "set", "acme", "--json", "shards"], "'shards' is not like NAME=VALUE"),
        (["tenant", "set", "acme", "x=1", "--jsn"], "unrecognized arguments: --jsn"),
        (["tenant", "show", "acme", "x=1"], "unrecognized arguments: x=1"),
        (["tenant", "list", "--db", "a", "--stack", "b"], "not allowed with"),
    ],
)
def test_misuse_is_code_2(sluice: Operator, arguments: list[str], said: str) -> None:
    failed = sluice(*arguments)
    assert failed.code == 2
    assert said in failed.err


def test_show_tells_all_settings_and_which_are_not_the_default(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme", "limits.streams_at_once=5", "on_outage=allow")
    said = sluice.done("tenant", "show", "acme")
    assert said.out.startswith("acme: active, made ")
    rows = {row[0]: row[1:] for row in said.rows[1:]}
    assert rows["setting"] == ["value", "default"]
    assert rows["limits.streams_at_once"] == ["5", "100"]
    assert rows["limits.starts_per_minute"] == ["600"]
    assert rows["on_outage"] == ["allow", "refuse"]
    assert rows["user_limits"] == ["none"]
    assert rows.keys() >= DEFAULT.keys() - {"limits", "redaction"}
    assert sluice.done("tenant", "show", "acme", "--json").json["settings"] == {
        **DEFAULT,
        "limits": {**DEFAULT["limits"], "streams_at_once": 5},
        "on_outage": "allow",
    }


def test_show_takes_what_it_shows(sluice: Operator, tmp_path: Path) -> None:
    sluice.done("tenant", "add", "acme", "shards=3", "redaction.detectors.ip=drop")
    settings = sluice.done("tenant", "show", "acme", "--json").json["settings"]
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    sluice.done("tenant", "add", "twin", "--file", str(file))
    assert stored(sluice, "twin").policy == stored(sluice).policy


def test_the_list(sluice: Operator) -> None:
    assert sluice.done("tenant", "list").out.startswith("There is no tenant yet")
    for name in ("beta", "acme"):
        sluice.done("tenant", "add", name)
    sluice.key("acme")
    revoked = sluice.key("acme").split("_")[1]
    sluice.done("key", "revoke", "acme", revoked)
    sluice.done("tenant", "suspend", "beta")
    sluice.streams("acme", 2)
    work(sluice.store, began("acme", closed=False))
    [titles, acme, beta] = sluice.done("tenant", "list").rows
    assert titles[:3] == ["tenant", "state", "made"]
    assert (acme[:2], beta[:2]) == (["acme", "active"], ["beta", "suspended"])
    assert datetime.fromisoformat(acme[2])
    assert beta[3:] == ["0", "0", "0", "0"]
    [keys, streams, today, month] = acme[3:]
    assert (keys, streams) == ("1", "1")
    assert int(today) == int(month) > 0
    told = sluice.done("tenant", "list", "--json").json["tenants"]
    assert [(t["tenant"], t["state"], t["keys"], t["streams_now"]) for t in told] == [
        ("acme", "active", 1, 1),
        ("beta", "suspended", 0, 0),
    ]


def test_more_tenants_than_are_read_at_once(sluice: Operator) -> None:
    names = [f"t{number:02}" for number in range(35)]
    for name in names:
        asyncio.run(Administration(sluice.store).add_tenant(name, {}))
    assert [row[0] for row in sluice.done("tenant", "list").rows[1:]] == names


def test_suspend_and_resume(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme")
    said = sluice.done("tenant", "suspend", "acme").out
    assert said == "The tenant acme is suspended: everywhere within 30 s.\n"
    assert stored(sluice).suspended
    assert sluice.done("tenant", "suspend", "acme").out == "The tenant acme is suspended already.\n"
    sluice.done("tenant", "suspend", "acme", "--resume")
    assert not stored(sluice).suspended
    assert [entry.event for entry in entries(sluice)] == [
        *(Event.TENANT_ADDED, Event.TENANT_SUSPENDED, Event.TENANT_RESUMED)
    ]


def left_of(sluice: Operator, tenant: str) -> list[Any]:
    """What the table of tenants still has of a tenant, beside the heads of its audit."""
    return [
        item
        for (table, pk, what), item in sluice.store.items.items()
        if table == TENANTS.name and tenant in f"{pk} {what} {item.get('tenant')}"
        # Nor jobs of erasures: the last look at what is there already falls to the sweep.
        if pk not in (f"chain#{tenant}", f"erased#{tenant}", "#erasures")
    ]


@pytest.fixture
def full(sluice: Operator) -> Operator:
    """With two tenants that have everything: keys, streams of users, one still running."""
    for name in ("acme", "beta"):
        limits = ("shards=3", "user_limits.streams_at_once=9", "origins=https://a.test")
        sluice.done("tenant", "add", name, *limits)
        sluice.key(name)
        sluice.key(name, "--user", "ann")
        sluice.streams(name, 3)
        sluice.streams(name, user="ann")
        work(sluice.store, began(name, closed=False))
    return sluice


def text_of(sluice: Operator, tenant: str) -> str:
    """All that the table of streams has of a tenant."""
    return str(
        [
            item
            for (table, pk, _), item in sluice.store.items.items()
            if table == STREAMS.name and str(pk).startswith(f"{tenant}#")
        ]
    )


def test_remove_leaves_nothing_but_the_audit(full: Operator) -> None:
    others = (left_of(full, "beta"), text_of(full, "beta"))
    assert "What is a sluice?" in text_of(full, "acme")
    said = full.done("tenant", "remove", "acme", "--yes")
    assert said.out == "The tenant acme is gone, with 5 streams and 2 keys.\n"
    assert "Its audit stays, each entry for 400 days" in said.err
    # Counters of users are told from each other by a hash only, and expire.
    assert all(
        "expires_at" in item and "#user#" in str(item["pk"]) for item in left_of(full, "acme")
    )
    assert "What is a sluice?" not in text_of(full, "acme")
    assert all(
        item["kind"] == Kind.ERASED
        for (table, pk, seq), item in full.store.items.items()
        if table == STREAMS.name and str(pk).startswith("acme#") and int(seq) >= 0
    )
    assert (left_of(full, "beta"), text_of(full, "beta")) == others
    last = entries(full)[-1]
    assert (last.event, last.details) == (Event.TENANT_REMOVED, {"streams": 5, "keys": 2})
    assert full("tenant", "show", "acme").err.startswith("sluice: there is no tenant acme")
    assert full.done("audit", "verify", "acme").out.endswith("whole\n")
    assert full.done("audit", "show", "acme").rows[-1][3] == "tenant-removed"


def test_a_tenant_may_come_again(full: Operator) -> None:
    full.done("tenant", "remove", "acme", "--yes")
    full.done("tenant", "add", "acme")
    assert full.done("usage", "acme", "--json").json["tokens"] == {}
    assert full.done("audit", "verify", "acme").out.endswith("whole\n")


class Interrupted(Operator):
    """A store that stops answering, or whose user gives up, at some write."""

    def at(self, number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        left = number

        def count(_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise error

        for name in ("write", "transact", "overwrite"):
            method = getattr(self.store, name)

            async def counted(*given: Any, method: Any = method) -> Any:
                count(given)
                return await method(*given)

            monkeypatch.setattr(self.store, name, counted)


@pytest.mark.parametrize("number", [*range(26), 50, 87, 88])
def test_remove_goes_on_after_any_interruption(
    full: Operator, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.audit.trail.PATIENCE_S", 0)
    with monkeypatch.context() as patch:
        Interrupted(full.store, full.capsys).at(number, KeyboardInterrupt(), patch)
        stopped = full("tenant", "remove", "acme", "--yes")
    assert stopped.code == 130
    assert stopped.err == "It is half done. The same command again goes on.\n"
    assert full.done("tenant", "list").rows[1][0] == "acme"
    full.done("tenant", "remove", "acme", "--yes")
    assert all("#user#" in str(item["pk"]) for item in left_of(full, "acme"))
    assert "What is a sluice?" not in text_of(full, "acme")
    assert full.done("audit", "verify", "acme").out.endswith("whole\n")
    assert [e.event for e in entries(full)].count(Event.TENANT_REMOVED) == 1


def test_a_remove_that_goes_on_takes_up_the_same_erasure(
    full: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def jobs() -> int:
        return sum(pk == "#erasures" for _, pk, _ in full.store.items)

    monkeypatch.setattr("shared.erasure.INDEX_LAG_S", 60)
    for _ in range(2):
        with monkeypatch.context() as patch:
            Interrupted(full.store, full.capsys).at(8, KeyboardInterrupt(), patch)
            assert full("tenant", "remove", "acme", "--yes").code == 130
        assert jobs() == 1
    # Who lets it go on meanwhile may have begun streams, which another erasure is for.
    full.done("tenant", "suspend", "acme", "--resume")
    full.streams("acme")
    full.done("tenant", "remove", "acme", "--yes")
    assert "What is a sluice?" not in text_of(full, "acme")
    assert jobs() == 2


def test_remove_waits_for_streams_that_begin_before_all_know(
    full: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that began elsewhere, by a tenant that was read before it was suspended."""
    sleeps: list[float] = []
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds
        sleeps.append(seconds)
        if len(sleeps) == 10:
            await began("acme", closed=True)(Services.on(full.store, Settings()))

    async def remove() -> list[Any]:
        administration = Administration(full.store, now=lambda: time.time() + clock[0])
        return [done async for done in administration.remove_tenant("acme")]

    monkeypatch.setattr("shared.administration.asyncio.sleep", sleep)
    told = asyncio.run(remove())
    assert 89 <= sum(sleeps) <= 90
    assert max(done.wait_s for done in told) > 80
    assert (told[-1].streams, told[-1].keys) == (6, 2)
    assert "What is a sluice?" not in text_of(full, "acme")
    assert not any(pk == "#erasures" for _, pk, _ in full.store.items)


def test_remove_does_not_end_a_tenant_whose_streams_it_cannot_have_seen(full: Operator) -> None:
    async def remove(behind_s: float) -> None:
        administration = Administration(full.store, now=lambda: time.time() - behind_s)
        async for _ in administration.remove_tenant("acme", settle_s=0, lag_s=0):
            pass

    with pytest.raises(Unavailable, match="clocks differ"):
        asyncio.run(remove(behind_s=3600))
    assert "What is a sluice?" in text_of(full, "acme")
    asyncio.run(remove(behind_s=-1))
    assert "What is a sluice?" not in text_of(full, "acme")


def test_remove_asks(full: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(full.store.items)
    assert full("tenant", "remove", "acme").err == (
        "sluice: nobody can be asked here: --yes removes without asking\n"
    )
    monkeypatch.setattr("sys.stdin", Typed("beta\n"))
    refused = full("tenant", "remove", "acme")
    assert refused.code == 1
    assert "This erases all streams of acme" in refused.err
    assert "that is not its name; nothing was done" in refused.err
    assert full.store.items == before
    monkeypatch.setattr("sys.stdin", Typed("acme\n"))
    assert full("tenant", "remove", "acme").code == 0


class Typed(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_store_that_does_not_answer(full: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(*_: object) -> None:
        raise Unavailable("The database does not answer.")

    monkeypatch.setattr(full.store, "get", get)
    for arguments in (
        ("tenant", "list"),
        ("tenant", "show", "acme"),
        ("tenant", "set", "acme", "ticket_s=60"),
        ("tenant", "remove", "acme", "--yes"),
        ("usage",),
        ("key", "list", "acme"),
        ("audit", "show", "acme"),
    ):
        assert full(*arguments).err == "sluice: the database does not answer\n", arguments
