"""`sluice usage`."""

import re

from tests.local.conftest import Operator, began, work


def test_a_tenant_by_its_limits(sluice: Operator) -> None:
    limits = ("limits.streams_at_once=4", "limits.tokens_per_day=100000", "shards=2")
    sluice.done("tenant", "add", "acme", *limits)
    sluice.streams("acme", 2)
    work(sluice.store, began("acme", closed=False))
    said = sluice.done("usage", "acme")
    assert said.out.startswith("acme: active, 1 stream now\n")
    rows = {row[0]: row[1:] for row in said.rows[1:]}
    assert rows["limit"] == ["used", "left", "of", "full again"]
    assert rows["limits.streams_at_once"] == ["██░░░░░░░░", "25%", "3", "4"]
    used, _share, left, most, again = rows["limits.tokens_per_day"]
    assert used.startswith("█")
    assert 0 < int(left.replace(",", "")) < 100_000
    assert most == "100,000"
    assert again.startswith("in ")
    today = max(name for name in rows if re.fullmatch(r"\d{4}-\d\d-\d\d", name))
    [spent] = rows[today]
    assert int(left.replace(",", "")) + int(spent.replace(",", "")) == 100_000
    assert rows[today[:7]] == rows[today]


def test_a_tenant_as_json(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme", "limits.starts_per_minute=none")
    sluice.streams("acme", 1)
    told = sluice.done("usage", "acme", "--json").json
    assert (told["tenant"], told["state"], told["streams_now"]) == ("acme", "active", 0)
    [limit] = told["limits"]
    assert limit == {
        "policy": "tenant-streams-at-once",
        "limit": 100,
        "left": 100,
        "window_s": None,
        "reset_s": None,
    }
    day, month = sorted(told["tokens"], reverse=True)
    assert told["tokens"][day] == told["tokens"][month] > 0


def test_streams_are_counted_where_they_are_not_limited(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme", "limits.streams_at_once=none", "shards=3")
    for _ in range(5):
        work(sluice.store, began("acme", closed=False))
    assert sluice.done("usage", "acme").out.startswith("acme: active, 5 streams now\n")


def test_a_limit_that_was_lowered_below_what_runs(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme")
    for _ in range(3):
        work(sluice.store, began("acme", closed=False))
    sluice.done("tenant", "set", "acme", "limits.streams_at_once=1", "limits.starts_per_minute=0")
    said = sluice.done("usage", "acme")
    assert said.out.startswith("acme: active, 3 streams now\n")
    rows = {row[0]: row[1:] for row in said.rows[1:]}
    assert rows["limits.streams_at_once"] == ["██████████ 100%", "0", "1"]
    assert rows["limits.starts_per_minute"][:3] == ["██████████ 100%", "0", "0"]


def test_all_tenants(sluice: Operator) -> None:
    assert sluice.done("usage", "--json").json == {"tenants": []}
    sluice.done("tenant", "add", "acme", "limits.tokens_per_month=5000000")
    sluice.done("tenant", "add", "beta", "limits.streams_at_once=none")
    sluice.streams("acme", 1)
    work(sluice.store, began("beta", closed=False))
    [titles, acme, beta] = sluice.done("usage").rows
    assert titles == ["tenant", "streams now", "of", "tokens today", "of", "this month", "of"]
    assert acme[:3] == ["acme", "0", "100"]
    assert acme[4] == "–"
    assert acme[3] == acme[5] != "0"
    assert acme[6] == "5,000,000"
    assert beta[:3] == ["beta", "1", "–"]
    told = sluice.done("usage", "--json").json["tenants"]
    assert [each["tenant"] for each in told] == ["acme", "beta"]
