"""The bench runs, and its rows are sane. How long anything takes is not a test's to judge."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import SECTIONS, main
from bench.counting import Counting, item_bytes
from bench.model import stamps
from bench.parts import ROOT
from bench.rows import Row, percentile, render
from local import dynoxide
from local.errors import Failed
from shared.log import Log
from shared.records import Item, Kind, Record
from shared.schema import STREAMS
from shared.table import Put, Query, Update
from tests.model_store import ModelStore

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """One quick run of everything: its rows by what they measure and what they compare with."""
    try:
        dynoxide.find()
    except Failed:
        pytest.skip("this machine has no dynoxide")
    file = tmp_path_factory.mktemp("bench") / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(file.read_text())["rows"]
    assert all(row["what"] in done.stdout for row in found)
    return {f"{row['section']}: {row['what']} | {row['peer']}": row for row in found}


def only(rows: Found, start: str) -> dict[str, Any]:
    [row] = [row for name, row in rows.items() if name.startswith(start)]
    return row


@pytest.mark.e2e
def test_every_section_has_rows_and_every_row_is_a_number(rows: Found) -> None:
    assert {row["section"] for row in rows.values()} == set(SECTIONS)
    for row in rows.values():
        assert math.isfinite(row["value"])
        assert row["value"] >= 0
        assert (row["peer_value"] is None) == (row["peer"] == "")
    for section in ("relay", "cpu", "cold"):
        assert all(r["ratio"] > 0 for r in rows.values() if r["section"] == section)


@pytest.mark.e2e
def test_pacing_makes_fewer_chunks_and_fewer_writes(rows: Found) -> None:
    assert only(rows, "relay: 50 tokens/s, default pacing: chunks")["ratio"] < 1
    assert only(rows, "cost: an answer: writes")["ratio"] < 1
    assert only(rows, "cost: … of the answers: writes alone")["ratio"] < 1


@pytest.mark.e2e
def test_a_write_a_token_is_counted_as_such(rows: Found) -> None:
    # 60 tokens, and thirteen units each for the two transactions around them; tokens that come
    # while a write is under way share the next one.
    assert 56 <= only(rows, "cost: an answer: writes")["peer_value"] <= 86


@pytest.mark.e2e
def test_who_sits_beside_the_producer_reads_nothing_of_the_log(rows: Found) -> None:
    # What the tenant has used, the breaker, and for each follower the end of the audit: in a second
    # at least, in which a log would be read about ten times by each.
    assert only(rows, "followers: 5 beside the producer: reads")["value"] <= 8
    assert only(rows, "followers: 5 in another process: reads")["value"] > 16
    # The key, also by its id, the tenant and the model's breaker, which are remembered; and what
    # the tenant has used.
    assert only(rows, "cost: an answer: reads")["value"] == 5


@pytest.mark.e2e
def test_polls_are_counted(rows: Found) -> None:
    requests = only(rows, "cost: a client that polls: requests")["value"]
    reads = only(rows, "cost: a client that polls: reads")["value"]
    assert requests >= 2
    assert reads >= requests / 2


@pytest.mark.e2e
def test_what_surrounds_the_log_costs_what_it_should(rows: Found) -> None:
    one = "limits: every limit: an answer of one chunk,"
    alone = {what: only(rows, f"{one} {what} | the log alone") for what in ("writes", "reads")}
    counted = {what: only(rows, f"{one} {what} | no limit") for what in ("writes", "reads")}
    # A chunk, and twice a record and a summary, which is in three indexes.
    assert alone["writes"]["peer_value"] == 1 + 2 * (2 + 2 + 1 + 1 + 1)
    # And twice an entry, which is in an index, its head, and the tenant's counter.
    assert counted["writes"]["peer_value"] == alone["writes"]["peer_value"] + 2 * (2 + 1 + 2 + 2)
    # And twice the counters of the user and of the address.
    assert counted["writes"]["value"] == counted["writes"]["peer_value"] + 2 * (2 + 2)
    assert (alone["reads"]["peer_value"], counted["reads"]["peer_value"]) == (0, 1)
    assert counted["reads"]["value"] == 3


@pytest.mark.e2e
def test_a_refusal_writes_nothing(rows: Found) -> None:
    for what in ("a limit", "an unknown key"):
        assert only(rows, f"limits: refused by {what}: items written")["value"] == 0
        assert only(rows, f"limits: refused by {what}: reads")["value"] <= 1


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "relay, cpu, cold, cost, limits, redaction, followers" in capsys.readouterr().err


def test_a_row_without_a_peer_has_no_ratio() -> None:
    assert Row("s", "w", 1, "ms").ratio is None
    assert Row("s", "w", 1, "ms", "p", 0).ratio is None
    table = render([Row("s", "w", 1234.5, "ms", "p", 100), Row("s", "v", 0.01234, "ms")])
    assert "1,234" in table
    assert "12.3×" in table
    assert "0.0123" in table


def test_a_percentile_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)
    assert percentile([7.0], 99) == 7


def test_stamps_are_found_between_other_text() -> None:
    assert stamps("@1234567;word @ 12; @2345678;") == [1234567, 2345678]


def test_sizes_are_dynamodbs() -> None:
    assert item_bytes({"pk": "ä"}) == 2 + 2
    assert item_bytes({"n": 12345}) == 1 + 4


async def test_units_follow_dynamodbs_rules() -> None:
    store = Counting(ModelStore())
    log = Log(store)
    key = log.new_key("tenant", bytes(5), retention_days=30)
    opened = Record(0, Kind.OPENED, 1, log.now_ms(), log.new_writer(), body={"model": "demo"})
    await log.open(key, opened)
    # The record, the summary, and that in two indexes: of its tenant, of what is open.
    assert store.counts.wru == 2 + 2 + 2
    long = Record(1, Kind.TEXT, 1, log.now_ms(), opened.by, text="x" * 1024)
    await log.append(key, long)
    assert store.counts.wru == 6 + 2
    await log.read(key)
    assert store.counts.rru == 0.5
    await store.get(STREAMS, {"pk": "nobody", "seq": 0})
    assert store.counts.rru == 0.5 + 1
    assert set(store.counts.acks) == {0, 1}
    assert (store.counts.writes, store.counts.reads) == (3, 2)


async def test_what_leaves_an_index_is_priced_there() -> None:
    store = Counting(ModelStore())
    item: Item = {"pk": "p", "seq": -1, "stream": "s", "tenant": "t", "open": "7"}
    await store.write(Put(STREAMS, item))
    assert store.counts.wru == 1 + 2  # by its tenant, and among those that are open
    await store.write(Update(STREAMS, {"pk": "p", "seq": -1}, {"status": "x"}, remove=("open",)))
    assert store.counts.wru == 3 + 1 + 2
    await store.write(Update(STREAMS, {"pk": "p", "seq": -1}, {"status": "y"}))
    assert store.counts.wru == 6 + 1 + 1


async def test_what_is_refused_is_priced_and_not_counted_as_written() -> None:
    store = Counting(ModelStore())
    item: Item = {"pk": "p", "seq": 1, "text": "x" * 3000}
    await store.write(Put(STREAMS, item))
    assert (store.counts.writes, store.counts.wru) == (1, 3)
    assert await store.write(Put(STREAMS, item))
    assert (store.counts.writes, store.counts.wru) == (1, 4)
    assert await store.transact([Put(STREAMS, item), Put(STREAMS, {"pk": "p", "seq": 2})], "t")
    assert (store.counts.writes, store.counts.wru) == (1, 4 + 2 * 2)


async def test_a_query_is_priced_by_all_that_it_reads() -> None:
    store = Counting(ModelStore())
    for seq in range(9):
        item: Item = {"pk": "p", "seq": seq, "text": "x" * 1000}
        await store.write(Put(STREAMS, item))
    await store.query(Query(STREAMS, "p", 100, start=0, consistent=True))
    assert store.counts.rru == 3


def test_the_script_is_there_to_be_run() -> None:
    script = Path(ROOT / "scripts" / "bench")
    assert script.stat().st_mode & 0o111
