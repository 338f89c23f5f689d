"""From a delta leaving the model to its bytes at the client, durable write included.

The floor relays the same model through the same server without a log. Answers of both alternate,
so that what else the machine does meanwhile meets both.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median, pstdev
from typing import Any

from bench.client import Event, start
from bench.model import stamps
from bench.parts import Bench, Server, server
from bench.rows import Row, percentile

RATES = (50, 200)
FLOOR = "passthrough without a log"


@dataclass(slots=True)
class Sample:
    """What was seen of answers of one sort, in ms."""

    delays: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    first_texts: list[float] = field(default_factory=list)
    put_ms: list[float] = field(default_factory=list)
    after_put_ms: list[float] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0

    async def take(
        self, port: int, tokens: int, rate: int, pacing: dict[str, int] | None
    ) -> list[Event]:
        """One answer more; returns its chunks."""
        model = f"bench/demo?tokens={tokens}&rate={rate}&ttft=0"
        options: dict[str, Any] = {"pacing": pacing} if pacing else {}
        response = await start(port, model, **options)
        chunks = [event for event in await response.events() if event.name == "chunk"]
        made = [(stamp, event.at_ns) for event in chunks for stamp in stamps(event.data["text"])]
        if len(made) != tokens:
            raise RuntimeError(f"of {tokens} deltas {len(made)} arrived")
        self.delays += [(at_ns - stamp) / 1e6 for stamp, at_ns in made]
        self.gaps += [(after.at_ns - before.at_ns) / 1e6 for before, after in pairwise(chunks)]
        self.first_texts.append((chunks[0].at_ns - response.began_ns) / 1e6)
        self.chunks += len(chunks)
        self.seconds += (response.ended_ns - chunks[0].at_ns) / 1e9
        return chunks


async def measure(bench: Bench) -> list[Row]:
    rounds, seconds, tokens_paced = (1, 0.5, 25) if bench.quick else (4, 3, 500)
    with server(bench, "stream") as ours, server(bench, "floor") as floor:
        samples: dict[tuple[str, int], Sample] = defaultdict(Sample)
        await asyncio.gather(*(Sample().take(s.port, 25, 50, None) for s in (ours, floor)))
        for number in range(rounds):
            bench.say(f"round {number + 1} of {rounds}")
            for rate in RATES:
                tokens = int(rate * seconds)
                await samples["floor", rate].take(floor.port, tokens, rate, None)
                await _ours(samples["ours", rate], ours, tokens, rate)
        for number in range(rounds // 2 + 1):
            bench.say(f"default pacing, answer {number + 1}")
            await samples["paced", 50].take(ours.port, tokens_paced, 50, None)
    return [*_unpaced(samples), *_paced(samples["paced", 50], samples["floor", 50])]


async def _ours(sample: Sample, ours: Server, tokens: int, rate: int) -> None:
    await ours.counts()
    chunks = await sample.take(ours.port, tokens, rate, {"flush_interval_ms": 0})
    counts = await ours.counts()
    sample.put_ms += counts.put_ms
    sample.after_put_ms += [(chunk.at_ns - counts.acks[chunk.seq]) / 1e6 for chunk in chunks]


def _unpaced(samples: dict[tuple[str, int], Sample]) -> list[Row]:
    rows = []
    for rate in RATES:
        ours, floor = samples["ours", rate], samples["floor", rate]
        at = f"{rate} tokens/s, no pacing"
        for p in (50, 99):
            value, peer = percentile(ours.delays, p), percentile(floor.delays, p)
            rows.append(Row("relay", f"{at}: delta → client, p{p}", value, "ms", FLOOR, peer))
        for p in (50, 99):
            write, whole = percentile(ours.put_ms, p), percentile(ours.delays, p)
            what = f"{at}: the durable write alone, p{p}"
            rows.append(Row("relay", what, write, "ms", f"delta → client, p{p}", whole))
        after, floor_p50 = median(ours.after_put_ms), median(floor.delays)
        rows.append(Row("relay", f"{at}: durable → client, p50", after, "ms", FLOOR, floor_p50))
    return rows


def _paced(ours: Sample, floor: Sample) -> list[Row]:
    at = "50 tokens/s, default pacing"
    pairs = [
        ("request → first text, p50", "ms", median(ours.first_texts), median(floor.first_texts)),
        *(
            (f"delta → client, p{p}", "ms", percentile(ours.delays, p), percentile(floor.delays, p))
            for p in (50, 99)
        ),
        ("chunks", "1/s", ours.chunks / ours.seconds, floor.chunks / floor.seconds),
        ("gap between chunks, stdev", "ms", pstdev(ours.gaps), pstdev(floor.gaps)),
        ("gap between chunks, p99", "ms", percentile(ours.gaps, 99), percentile(floor.gaps, 99)),
    ]
    return [
        Row("relay", f"{at}: {what}", value, unit, FLOOR, peer) for what, unit, value, peer in pairs
    ]
