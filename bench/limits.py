"""What quotas and the audit add to a start, and what a refused request costs.

The same short answer is asked for in three ways, in turns: by a user of a tenant that has every
limit, on itself, its users and its addresses; by a tenant that has none, whose use is only counted;
and with nothing but the log, from a server that leaves out what else belongs to a start and an end.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.client import Response, request, start
from bench.counting import Counts
from bench.parts import TENANT, Bench, Server, cpu_s, server
from bench.rows import Row, percentile
from local.database import connect
from shared.administration import Administration
from shared.identity.keys import Key, id_of
from shared.settings import Settings

LIMITED, UNLIMITED, REFUSED = (f"bench-{name}-key" for name in ("a", "b", "c"))
MODEL = "demo?tokens=1&rate=0&ttft=0"
#: Limits that a bench does not come near.
_MANY = {
    "streams_at_once": 10**6,
    "starts_per_minute": 10**6,
    "tokens_per_minute": 10**9,
    "tokens_per_day": 10**11,
    "tokens_per_month": 10**11,
}
_NONE = dict.fromkeys(_MANY)
_POLICIES: dict[str, dict[str, Any]] = {
    LIMITED: {"limits": _MANY, "user_limits": _MANY, "address_limits": _MANY},
    UNLIMITED: {"limits": _NONE},
    REFUSED: {"limits": {"starts_per_minute": 0}},
}
ALL, COUNTED, ALONE = "every limit", "no limit, only counted", "the log alone"


@dataclass(slots=True)
class Sample:
    """Answers of one sort: ms until the first text, and what each took from the store."""

    first_text_ms: list[float] = field(default_factory=list)
    spent: list[Counts] = field(default_factory=list)

    async def take(self, from_: Server, key: str) -> None:
        await from_.counts()
        response = await start(from_.port, MODEL, key=key)
        events = await response.events()
        first = next(event for event in events if event.name == "chunk")
        self.first_text_ms.append((first.at_ns - response.began_ns) / 1e6)
        self.spent.append(await from_.counts())


async def measure(bench: Bench) -> list[Row]:
    await _make_tenants(bench)
    rounds, refusals = (3, 20) if bench.quick else (60, 500)
    with server(bench, "stream") as ours, server(bench, "bare") as bare:
        ways = {ALL: (ours, LIMITED), COUNTED: (ours, UNLIMITED), ALONE: (bare, UNLIMITED)}
        samples = {name: Sample() for name in ways}
        for way in ways.values():
            await Sample().take(*way)  # from here on its key, tenant and breaker are known
        bench.say(f"{rounds} answers of each sort")
        for _ in range(rounds):
            for name, way in ways.items():
                await samples[name].take(*way)
        bench.say(f"{refusals} refused requests of each sort")
        by_limit = await _refused(ours, "a limit", [REFUSED] * refusals)
        unknown = [f"bench-nobody-{number}" for number in range(refusals)]
        return [*_rows(samples), *by_limit, *await _refused(ours, "an unknown key", unknown)]


async def _make_tenants(bench: Bench) -> None:
    administration = Administration(connect(Settings(dynamodb_endpoint=bench.endpoint), own=True))
    for key, policy in _POLICIES.items():
        tenant = f"{TENANT}-{id_of(key)}"
        await administration.add_tenant(tenant, policy)
        await administration.add_key(key, Key(tenant, id_of(key), user="ada"))


#: What is told of an answer, and its unit. Of what is remembered a read is due now and then: the
#: median is without it.
_COUNTS: Mapping[tuple[str, str], Callable[[Counts], float]] = {
    ("reads", "RRU"): lambda counts: counts.rru,
    ("items written", ""): lambda counts: counts.writes,
    ("writes", "WRU"): lambda counts: counts.wru,
}


def _rows(samples: Mapping[str, Sample]) -> list[Row]:
    rows = []
    for peer in (COUNTED, ALONE):
        ours, other = samples[ALL], samples[peer]
        for p in (50, 99):
            what = f"{ALL}: request → first text, p{p}"
            value, of = (percentile(sample.first_text_ms, p) for sample in (ours, other))
            rows.append(Row("limits", what, value, "ms", peer, of))
        for (counted, unit), count in _COUNTS.items():
            what = f"{ALL}: an answer of one chunk, {counted}"
            value, of = (median(map(count, sample.spent)) for sample in (ours, other))
            rows.append(Row("limits", what, value, unit, peer, of))
    return rows


async def _refused(ours: Server, what: str, keys: Sequence[str]) -> list[Row]:
    """Starts that are refused, each on a connection of its own, beside a request for nothing."""
    await _start(ours, keys[0])
    await ours.counts()
    took, cpu = await _timed(ours, [_start(ours, key) for key in keys])
    counts = await ours.counts()
    floor, floor_cpu = await _timed(ours, [_healthz(ours) for _ in keys])
    name, peer = f"refused by {what}", "GET /healthz"
    return [
        Row("limits", f"{name}: time, p50", took, "µs", peer, floor),
        Row("limits", f"{name}: CPU", cpu, "µs", peer, floor_cpu),
        Row("limits", f"{name}: reads", counts.reads / len(keys), ""),
        Row("limits", f"{name}: items written", counts.writes / len(keys), ""),
    ]


async def _timed(
    ours: Server, requests: Sequence[Coroutine[Any, Any, Response]]
) -> tuple[float, float]:
    """Of requests one after the other: the median time, and the CPU time of each, in µs."""
    before, took = cpu_s(ours.pid), []
    for asked in requests:
        response = await asked
        await response.body()
        took.append((response.ended_ns - response.began_ns) / 1e3)
    return median(took), (cpu_s(ours.pid) - before) / len(took) * 1e6


async def _start(ours: Server, key: str) -> Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "How?"}]}
    return await request(ours.port, "POST", "/v1/streams", body, key=key, refused=True)


async def _healthz(ours: Server) -> Response:
    return await request(ours.port, "GET", "/healthz")
