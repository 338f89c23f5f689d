"""Many followers of one stream: beside its producer, and in another process.

Beside the producer they are told in memory; elsewhere each reads the table. The delay is from the
acknowledgement of a record's write to the client that shows it. Everyone must receive everything.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from bench.client import Event, request, start, text_of
from bench.counting import Counts
from bench.parts import Bench, Server, cpu_s, server
from bench.rows import Row, percentile

NUMBERS = (1, 10, 100)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of one answer: delays in ms, and what the followers' process did for it."""

    delays: list[float]
    reads_a_second: float
    cpu_percent: float


async def measure(bench: Bench) -> list[Row]:
    numbers, tokens = ((1, 5), 25) if bench.quick else (NUMBERS, 250)
    rows = []
    with server(bench, "stream") as producing, server(bench, "stream") as elsewhere:
        await _watch(producing, elsewhere, 2, tokens=10)
        places = {"beside the producer": producing, "in another process": elsewhere}
        peer: tuple[str, _Seen | None] = ("", None)
        for place, serving in places.items():
            for number in numbers:
                bench.say(f"{number} {place}")
                seen = await _watch(producing, serving, number, tokens=tokens)
                rows += _rows(f"{number} {place}", seen, *peer)
                if number == 1:
                    peer = (f"1 {place}", seen)
    return rows


async def _watch(producing: Server, serving: Server, number: int, *, tokens: int) -> _Seen:
    """One answer at 50 tokens a second, and `number` followers of it."""
    await producing.counts()
    await serving.counts()
    # Time for all to connect, so that what they see is a running stream.
    response = await start(producing.port, f"demo?tokens={tokens}&rate=50&ttft=500")
    events_url = response.headers["location"]
    cpu_before = cpu_s(serving.pid)
    holder, *followers = await asyncio.gather(
        response.events(), *(_follow(serving.port, events_url) for _ in range(number))
    )
    cpu = cpu_s(serving.pid) - cpu_before
    produced = await producing.counts()
    served = produced if serving is producing else await serving.counts()
    for events in followers:
        if _shown(events) != _shown(holder):
            raise RuntimeError("a follower did not receive everything")
    seconds = (response.ended_ns - response.began_ns) / 1e9
    delays = [delay for events in followers for delay in _delays(events, produced)]
    return _Seen(delays, served.reads / seconds, 100 * cpu / seconds)


async def _follow(port: int, path: str) -> list[Event]:
    return await (await request(port, "GET", path)).events()


def _shown(events: list[Event]) -> tuple[str, list[int]]:
    return text_of(events), [event.seq for event in events]


def _delays(events: list[Event], produced: Counts) -> list[float]:
    # What was there before a follower came is no delay of its own.
    return [
        (event.at_ns - produced.acks[event.seq]) / 1e6
        for event in events
        if event.name == "chunk" and produced.acks[event.seq] > events[0].at_ns
    ]


def _rows(name: str, seen: _Seen, peer_name: str, peer: _Seen | None) -> list[Row]:
    def row(what: str, unit: str, of: Callable[[_Seen], float]) -> Row:
        known = of(peer) if peer else None
        return Row("followers", f"{name}: {what}", of(seen), unit, peer_name, known)

    return [
        row("durable → client, p50", "ms", lambda it: percentile(it.delays, 50)),
        row("durable → client, p99", "ms", lambda it: percentile(it.delays, 99)),
        row("reads of the table", "1/s", lambda it: it.reads_a_second),
        row("CPU of their process", "%", lambda it: it.cpu_percent),
    ]
