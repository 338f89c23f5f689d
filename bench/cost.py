"""What DynamoDB and Lambda charge for an answer, its followers and its polls.

Requests are counted on the way to the store and priced by DynamoDB's rules (see `counting`); the
time of an invocation is the one measured here, so a real database's slower replies are not in it.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Self

from bench.client import Response, request, start, text_of
from bench.counting import Counts
from bench.parts import Bench, Server, server
from bench.rows import Row
from local import prices

MEMORIES_MB = (256, 512)
ANSWERS = 1000


@dataclass(frozen=True, slots=True)
class Spent:
    """What one answer, or one reader of it, took from the store and from Lambda."""

    writes: int
    wru: float
    rru: float
    invocations: int
    seconds: float

    @classmethod
    def of(cls, counts: Counts, response: Response) -> Self:
        """One invocation, for as long as its response took."""
        seconds = (response.ended_ns - response.began_ns) / 1e9
        return cls(counts.writes, counts.wru, counts.rru, 1, seconds)

    def usd(self, memory_mb: int) -> float:
        return (
            self.wru * prices.WRU
            + self.rru * prices.RRU
            + self.invocations * prices.LAMBDA_REQUEST
            + self.seconds * memory_mb / 1024 * prices.LAMBDA_GB_S
        )


async def measure(bench: Bench) -> list[Row]:
    tokens, ttft = (60, 100) if bench.quick else (500, 800)
    model = f"demo?tokens={tokens}&rate=50&ttft={ttft}"
    with (
        server(bench, "stream") as paced,
        server(bench, "stream") as unpaced,
        server(bench, "stream") as elsewhere,
        server(bench, "api") as api,
    ):
        # Brings them up, so that nobody's first import is billed as an answer.
        await asyncio.gather(*(one.counts() for one in (paced, unpaced, elsewhere, api)))
        bench.say(f"one answer of {tokens} tokens, twice")
        response = await start(paced.port, model)
        stream = response.headers["stream-id"]
        events, follower, poller, each = await asyncio.gather(
            response.events(), _follow(elsewhere, stream), _poll(api, stream), _each(unpaced, model)
        )
        answer = Spent.of(await paced.counts(), response)
    polls, text = poller
    if text != text_of(events):
        raise RuntimeError("the polls did not bring the whole answer")
    return [*_units(answer, each, polls, follower), *_usd(answer, each, polls, follower)]


async def _each(unpaced: Server, model: str) -> Spent:
    """The same answer with a write for each token."""
    response = await start(unpaced.port, model, pacing={"flush_interval_ms": 0})
    await response.events()
    return Spent.of(await unpaced.counts(), response)


async def _follow(elsewhere: Server, stream: str) -> Spent:
    response = await request(elsewhere.port, "GET", f"/v1/streams/{stream}/events")
    await response.events()
    return Spent.of(await elsewhere.counts(), response)


async def _poll(api: Server, stream: str) -> tuple[Spent, str]:
    """A client that polls as it is told to, to the end; and the text that it put together."""
    text, seconds, polls = "", 0.0, 0
    page: dict[str, Any] = {"next": -1, "closed": False}
    while not page["closed"]:
        began = time.monotonic()
        path = f"/v1/streams/{stream}/chunks?after={page['next']}"
        page = await (await request(api.port, "GET", path)).json()
        seconds += time.monotonic() - began
        polls += 1
        text += "".join(chunk["text"] for chunk in page["chunks"])
        if not page["closed"]:
            await asyncio.sleep(page["poll_after_ms"] / 1000)
    counts = await api.counts()
    return Spent(counts.writes, counts.wru, counts.rru, polls, seconds), text


def _units(answer: Spent, each: Spent, polls: Spent, follower: Spent) -> list[Row]:
    token = "a write a token"
    return [
        Row("cost", "an answer: items written", answer.writes, "", token, each.writes),
        Row("cost", "an answer: writes", answer.wru, "WRU", token, each.wru),
        Row("cost", "an answer: reads, its client attached", answer.rru, "RRU"),
        Row("cost", "a client that polls: requests", polls.invocations, ""),
        Row(
            "cost",
            "a client that polls: reads",
            polls.rru,
            "RRU",
            "the answer's writes",
            answer.wru,
        ),
        Row("cost", "one poll: reads", polls.rru / polls.invocations, "RRU"),
        Row("cost", "a follower elsewhere: reads", follower.rru, "RRU", "polling", polls.rru),
    ]


def _usd(answer: Spent, each: Spent, polls: Spent, follower: Spent) -> list[Row]:
    rows = []
    for memory in MEMORIES_MB:
        at = f"{ANSWERS:,} answers, {memory} MB, {answer.seconds:.1f} s each"
        usd, peer = ANSWERS * answer.usd(memory), ANSWERS * each.usd(memory)
        rows.append(Row("cost", at, usd, "USD", "a write a token", peer))
    writes = ANSWERS * answer.wru * prices.WRU
    peer = ANSWERS * each.wru * prices.WRU
    rows.append(
        Row("cost", "… of the answers: writes alone", writes, "USD", "a write a token", peer)
    )
    whole = ANSWERS * answer.usd(512)
    for name, spent, memory in (("poll", polls, 256), ("follow elsewhere", follower, 512)):
        what = f"… and as many clients that {name}, {memory} MB"
        rows.append(
            Row("cost", what, ANSWERS * spent.usd(memory), "USD", "the answers, 512 MB", whole)
        )
    return rows
