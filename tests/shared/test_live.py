"""Live: what a process shows its own followers, and how little it keeps for them."""

import asyncio
import tracemalloc

from shared.live import RECENT_BYTES_MAX, THROTTLE_RECORDS, Channel, Live
from shared.records import Kind, Record, StreamKey
from tests.simulation.clock import virtual

KEY = StreamKey("tenant", "stream")


def chunk(seq: int, text: str = "x") -> Record:
    return Record(seq, Kind.TEXT, 1, 0, "writer", text)


def published(*seqs: int, text: str = "x") -> Channel:
    channel = Channel()
    for seq in seqs:
        channel.publish(chunk(seq, text))
    return channel


def seqs(records: tuple[Record, ...]) -> list[int]:
    return [record.seq for record in records]


@virtual
async def test_a_follower_gets_what_comes_after_its_offset() -> None:
    channel = published(0, 1, 2, 3)
    assert seqs(channel.since(-1)) == [0, 1, 2, 3]
    assert seqs(channel.since(1)) == [2, 3]
    assert channel.since(3) == ()
    assert channel.since(9) == ()


@virtual
async def test_a_follower_that_is_behind_what_is_kept_is_left_to_the_log() -> None:
    channel = published(5, 6)
    assert channel.since(3) == ()
    assert seqs(channel.since(4)) == [5, 6]


@virtual
async def test_what_is_kept_has_no_gap_and_nothing_twice_whoever_publishes() -> None:
    channel = published(0, 1, 2, 0, 1, 2, 3)
    assert seqs(channel.since(-1)) == [0, 1, 2, 3]
    channel.publish(chunk(3))
    channel.publish(chunk(7))
    channel.publish(chunk(8))
    assert channel.since(3) == ()
    assert seqs(channel.since(6)) == [7, 8]


@virtual
async def test_a_long_stream_keeps_to_its_memory() -> None:
    channel = Channel()
    tracemalloc.start()
    for seq in range(5000):
        channel.publish(chunk(seq, chr(0x1F600 + seq % 50) * 1000))
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 1.2 * RECENT_BYTES_MAX
    assert seqs(channel.since(4990)) == list(range(4991, 5000))
    assert channel.since(0) == ()


@virtual
async def test_one_record_is_kept_whatever_its_size() -> None:
    channel = published(0, 1, text="x" * RECENT_BYTES_MAX)
    assert seqs(channel.since(0)) == [1]


@virtual
async def test_of_a_stream_that_was_erased_nothing_is_shown() -> None:
    live = Live()
    live.forget(KEY)  # which nobody here produces or follows
    with live.producing(KEY) as channel:
        for seq in range(3):
            channel.publish(chunk(seq))
        waiting = asyncio.create_task(channel.news(10))
        await asyncio.sleep(1)
        live.forget(KEY)
        await waiting
        assert asyncio.get_running_loop().time() == 1
        assert channel.since(-1) == channel.since(1) == ()
        assert channel.head is None
        channel.publish(chunk(3))
        assert channel.since(1) == ()


@virtual
async def test_news_wakes_everyone_who_waits_and_else_waits_its_time() -> None:
    channel, loop = Channel(), asyncio.get_running_loop()
    waiting = [asyncio.create_task(channel.news(10)) for _ in range(3)]
    await asyncio.sleep(1)
    channel.publish(chunk(0))
    await asyncio.gather(*waiting)
    assert loop.time() == 1
    await channel.news(10)
    assert loop.time() == 11


@virtual
async def test_the_head_is_known_while_there_is_a_producer_here() -> None:
    live = Live()
    with live.channel(KEY) as channel:
        assert channel.head is None
        with live.producing(KEY) as same:
            assert same is channel
            channel.publish(chunk(0))
            assert channel.head == chunk(0)
            waiting = asyncio.create_task(channel.news(10))
            await asyncio.sleep(0)
        await waiting
        assert asyncio.get_running_loop().time() == 0
        assert channel.head is None


@virtual
async def test_a_channel_is_gone_with_its_last_user_and_never_shared_by_two_streams() -> None:
    live = Live()
    with live.channel(KEY) as first:
        with live.channel(KEY) as second, live.channel(StreamKey("other", "stream")) as other:
            assert first is second
            assert other is not first
        first.publish(chunk(0))
    with live.channel(KEY) as later:
        assert later.since(-1) == ()


@virtual
async def test_a_throttled_producer_waits_for_the_client_that_is_attached() -> None:
    with Live().producing(KEY) as channel:
        channel.attach(0)
        for seq in range(THROTTLE_RECORDS + 1):
            channel.publish(chunk(seq))
        await channel.room()
        channel.publish(chunk(THROTTLE_RECORDS + 1))
        waiting = asyncio.create_task(channel.room())
        await asyncio.sleep(100)
        assert not waiting.done()
        channel.attach(1)
        await waiting
        channel.publish(chunk(THROTTLE_RECORDS + 2))
        waiting = asyncio.create_task(channel.room())
        await asyncio.sleep(100)
        assert not waiting.done()
        channel.attach(None)
        await waiting
