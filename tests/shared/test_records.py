"""Records: what lies in the table is what was put there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.records import (
    DAY_S,
    Item,
    Kind,
    Record,
    StreamKey,
    Summary,
    dump,
    is_stream_id,
    new_stream_id,
)

TIMES = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=7, max_size=7)
DAYS = st.integers(1, 3650)
TAGS = st.binary(min_size=5, max_size=5)
KEY = StreamKey("tenant", new_stream_id(7, bytes(7), owner_tag=bytes(5), retention_days=30))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(TIMES, TIMES, RANDOM, RANDOM, DAYS, DAYS, TAGS, TAGS)
def test_ids_sort_by_their_time(
    a_ms: int, b_ms: int, a: bytes, b: bytes, a_days: int, b_days: int, a_tag: bytes, b_tag: bytes
) -> None:
    first = new_stream_id(a_ms, a, owner_tag=a_tag, retention_days=a_days)
    second = new_stream_id(b_ms, b, owner_tag=b_tag, retention_days=b_days)
    if a_ms != b_ms:
        assert (first < second) == (a_ms < b_ms)


@given(TIMES, RANDOM, DAYS, TAGS)
def test_an_id_tells_when_it_was_made_and_for_how_long_and_for_whom(
    now_ms: int, randomness: bytes, days: int, owner_tag: bytes
) -> None:
    made = new_stream_id(now_ms, randomness, owner_tag=owner_tag, retention_days=days)
    assert is_stream_id(made)
    key = StreamKey("t", made)
    assert key.created_ms == now_ms
    assert key.expires_at == now_ms // 1000 + days * DAY_S
    assert key.owner_tag == owner_tag


@pytest.mark.parametrize("size", [0, 6, 8])
def test_an_id_takes_exactly_its_randomness(size: int) -> None:
    with pytest.raises(ValueError, match="7 random bytes"):
        new_stream_id(0, bytes(size), owner_tag=bytes(5), retention_days=1)


@pytest.mark.parametrize("size", [0, 4, 6])
def test_an_id_takes_exactly_its_owners_tag(size: int) -> None:
    with pytest.raises(ValueError, match="5 bytes"):
        new_stream_id(0, bytes(7), owner_tag=bytes(size), retention_days=1)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "w" * 32, "A" * 32, "0" * 32 + "\n"])
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_stream_id(text)


@given(st.text("0123456789abcdefghijklmnopqrstuv", min_size=32, max_size=32))
def test_whatever_looks_like_an_id_can_be_asked(text: str) -> None:
    assert is_stream_id(text)
    key = StreamKey("tenant", text)
    assert key.expires_at >= key.created_ms // 1000
    assert len(key.owner_tag) == 5


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_record_comes_back_as_it_was(text: str, body: dict[str, object]) -> None:
    record = Record(7, Kind.TEXT, 2, 1_800_000_000_123, "writer", text, body)
    item = record.to_item(KEY)
    assert Record.from_item(item) == record
    assert (item["pk"], item["expires_at"]) == (KEY.pk, KEY.expires_at)
    assert all(isinstance(value, str | int) for value in item.values())


def test_a_record_without_text_or_body_stores_neither() -> None:
    item = Record(7, Kind.HEARTBEAT, 1, 0, "writer").to_item(KEY)
    assert not item.keys() & {"text", "body"}


def test_a_kind_that_is_not_known_yet_is_read_all_the_same() -> None:
    record = Record(7, "from-the-future", 1, 0, "writer")
    assert Record.from_item(record.to_item(KEY)) == record


def test_a_summary_comes_back_as_it_was() -> None:
    open_item: Item = {"stream": "s", "status": "open", "model": "demo", "created_at": 1}
    assert Summary.from_item(open_item) == Summary("s", "open", "demo", 1)
    closed: Item = {
        "closed_at": 2,
        "finish_reason": "stop",
        "usage": dump({"output_tokens": 3}),
        "error": dump({"type": "t"}),
        "metadata": dump({"é": "ü"}),
        "parent": "p",
        "user": "u",
        "last_seq": 4,
    }
    assert Summary.from_item(open_item | closed) == Summary(
        stream="s",
        status="open",
        model="demo",
        created_at=1,
        closed_at=2,
        finish_reason="stop",
        usage={"output_tokens": 3},
        error={"type": "t"},
        metadata={"é": "ü"},
        parent="p",
        user="u",
        last_seq=4,
    )


def test_json_is_kept_as_small_as_it_goes() -> None:
    assert dump({"text": "東京", "n": [1, 2]}) == '{"text":"東京","n":[1,2]}'
