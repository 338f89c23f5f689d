"""Records: what lies in the table is what was put there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.records import (
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
RANDOM = st.binary(min_size=9, max_size=9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(TIMES, TIMES, RANDOM, RANDOM)
def test_ids_sort_by_their_time(a_ms: int, b_ms: int, a: bytes, b: bytes) -> None:
    first, second = new_stream_id(a_ms, a), new_stream_id(b_ms, b)
    assert (first < second) == ((a_ms, a) < (b_ms, b))


@given(TIMES, RANDOM)
def test_an_id_tells_when_it_was_made(now_ms: int, randomness: bytes) -> None:
    made = new_stream_id(now_ms, randomness)
    assert is_stream_id(made)
    assert StreamKey("tenant", made).created_ms == now_ms


@pytest.mark.parametrize("size", [0, 8, 10])
def test_an_id_takes_exactly_its_randomness(size: int) -> None:
    with pytest.raises(ValueError, match="9 random bytes"):
        new_stream_id(0, bytes(size))


@pytest.mark.parametrize("text", ["", "0" * 23, "0" * 25, "w" * 24, "A" * 24, "0" * 24 + "\n"])
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_stream_id(text)


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_record_comes_back_as_it_was(text: str, body: dict[str, object]) -> None:
    record = Record(7, Kind.TEXT, 2, 1_800_000_000_123, "writer", text, body)
    item = record.to_item("tenant#stream", 99)
    assert Record.from_item(item) == record
    assert (item["pk"], item["expires_at"]) == ("tenant#stream", 99)
    assert all(isinstance(value, str | int) for value in item.values())


def test_a_record_without_text_or_body_stores_neither() -> None:
    item = Record(7, Kind.HEARTBEAT, 1, 0, "writer").to_item("pk", 0)
    assert not item.keys() & {"text", "body"}


def test_a_kind_that_is_not_known_yet_is_read_all_the_same() -> None:
    record = Record(7, "from-the-future", 1, 0, "writer")
    assert Record.from_item(record.to_item("pk", 0)) == record


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
        "last_seq": 4,
    }
    assert Summary.from_item(open_item | closed) == Summary(
        "s", "open", "demo", 1, 2, "stop", {"output_tokens": 3}, {"type": "t"}, {"é": "ü"}, "p", 4
    )


def test_json_is_kept_as_small_as_it_goes() -> None:
    assert dump({"text": "東京", "n": [1, 2]}) == '{"text":"東京","n":[1,2]}'
