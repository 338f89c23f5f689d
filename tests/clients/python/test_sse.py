"""Server-Sent Events, however their bytes come."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_client import sse
from sluice_client.sse import Decoder, Frame, TooLong

DATA = (
    b"\xef\xbb\xbfretry: 1000\nid: 0\nevent: opened\ndata: {}\n\n: hb\n"
    b"id:1\nevent:chunk\ndata: Gr\xc3\xbc\xc3\x9fe\ndata:  \xf0\x9f\x8c\x8a\n\n"
    b"id: 2\n\nfuture\nfuture: 1\nevent: reconnect\nretry: soon\ndata\n\n\n\nid: 3\ndata: cut"
)
FRAMES = [
    Frame("opened", "{}", "0", 1000),
    None,
    Frame("chunk", "Grüße\n 🌊", "1"),
    Frame("reconnect", ""),
]


@given(st.lists(st.integers(0, len(DATA)), max_size=20), st.sampled_from([b"\n", b"\r", b"\r\n"]))
def test_however_the_bytes_come_the_events_are_the_same(cuts: list[int], line_end: bytes) -> None:
    data = DATA.replace(b"\n", line_end)
    decoder = Decoder()
    edges = [0, *sorted(cuts), len(data)]
    frames = [frame for start, end in pairwise(edges) for frame in decoder.feed(data[start:end])]
    assert frames == FRAMES


def test_an_event_that_does_not_end_is_not_gathered_for_ever() -> None:
    decoder = Decoder()
    for _ in range(sse.EVENT_BYTES_MAX // 1024):
        assert list(decoder.feed(b"x" * 1024)) == []
    with pytest.raises(TooLong):
        list(decoder.feed(b"x"))
