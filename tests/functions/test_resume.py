"""Resuming: clients that are cut off at random bytes, at every offset, live and after the end.

Whatever happens to its connections, what a client puts together equals the text produced: no gap,
no repeat, ids strictly growing. The clients here read raw sockets, so that a cut may fall anywhere:
inside a header, an event's id, a character.
"""

import asyncio
import json
import random
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import pytest

from functions import api, stream
from shared.live import Live
from shared.records import Kind, StreamKey
from tests.functions.conftest import Sluice, serving, start_body


@dataclass
class Reader:
    """A client that keeps whole events only, and goes on after the last one."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    done: bool = False
    cuts: int = 0

    @property
    def after(self) -> int:
        return self.ids[-1] if self.ids else -1

    def take(self, body: bytes) -> None:
        """Take in the events that are complete in a body."""
        *blocks, _ = body.split(b"\n\n")
        for block in blocks:
            lines = [line for line in block.decode().split("\n") if not line.startswith(":")]
            fields = dict(line.split(": ", 1) for line in lines)
            assert int(fields["id"]) > self.after
            self.ids.append(int(fields["id"]))
            data = json.loads(fields["data"])
            if fields["event"] == "chunk":
                self.text += data["text"]
            self.done = fields["event"] == "closed"


async def read_some(url: str, path: str, most: int) -> bytes:
    """The body of a GET, as far as the first `most` bytes of the response hold it."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    request = f"GET {path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer demo\r\n\r\n"
    writer.write(request.encode())
    got = b""
    try:
        while len(got) < most and (data := await reader.read(most - len(got))):
            got += data
    finally:
        writer.close()
    return got.partition(b"\r\n\r\n")[2]


async def follow(url: str, stream_id: str, chance: random.Random, reader: Reader) -> None:
    while not reader.done:
        path = f"/v1/streams/{stream_id}/events?after={reader.after}"
        most = chance.choice([50, 300, 500, 700, 1500, 10**9])
        reader.take(await read_some(url, path, chance.randint(1, most)))
        reader.cuts += 1


async def poll(url: str, stream_id: str, chance: random.Random, reader: Reader) -> None:
    while not reader.done:
        wait, limit = chance.choice([0, 1]), chance.randint(1, 20)
        path = f"/v1/streams/{stream_id}/chunks?after={reader.after}&limit={limit}&wait={wait}"
        body = await read_some(url, path, chance.choice([100, 400, 10**9]))
        reader.cuts += 1
        try:
            page = json.loads(body)
        except ValueError:
            continue  # cut off; the same poll again
        for chunk in page["chunks"]:
            assert chunk["seq"] > reader.after
            reader.ids.append(chunk["seq"])
            reader.text += chunk["text"]
        if page["next"] > reader.after:
            reader.ids.append(page["next"])
        reader.done = page["closed"]
        await asyncio.sleep(min(page["poll_after_ms"], 30) / 1000)


async def produced(sluice: Sluice, stream_id: str) -> str:
    records = (await sluice.services.log.read(StreamKey("demo", stream_id))).records
    assert [record.seq for record in records] == list(range(len(records)))
    assert records[-1].closes
    return "".join(record.text for record in records if record.kind == Kind.TEXT)


@pytest.mark.parametrize("seed", range(4))
async def test_clients_cut_at_random_bytes_miss_nothing_live(sluice: Sluice, seed: int) -> None:
    body = start_body("demo?tokens=300&rate=150&ttft=100", pacing={"flush_interval_ms": [0, 30]})
    far = replace(sluice.services, live=Live())
    async with (
        serving(stream.build(sluice.services)) as near_producer,
        # Another process, as far as following goes: it has nothing but the table.
        serving(stream.build(far)) as far_away,
        serving(api.build(far)) as answering,
    ):
        started = await sluice.api.post(
            "/v1/streams", json=body, headers={"prefer": "respond-async"}
        )
        stream_id = started.json()["id"]
        # All of them are there before the first chunk.
        readers = [Reader() for _ in range(6)]
        await asyncio.gather(
            *(
                follow(
                    [near_producer, far_away][i % 2],
                    stream_id,
                    random.Random(seed * 100 + i),
                    reader,
                )
                for i, reader in enumerate(readers[:4])
            ),
            *(
                poll(answering, stream_id, random.Random(seed * 100 + 50 + i), reader)
                for i, reader in enumerate(readers[4:])
            ),
        )
    text = await produced(sluice, stream_id)
    assert len(text) > 1000
    for reader in readers:
        assert reader.text == text
        assert reader.ids == sorted(set(reader.ids))
    assert sum(reader.cuts for reader in readers) > len(readers)


async def test_clients_cut_at_random_bytes_miss_nothing_after_the_end(sluice: Sluice) -> None:
    body = start_body("demo?tokens=300&rate=0", pacing={"flush_interval_ms": 0})
    async with (
        serving(stream.build(sluice.services)) as streaming,
        serving(api.build(sluice.services)) as answering,
    ):
        started = await sluice.stream.post("/v1/streams", json=body)
        stream_id = started.headers["stream-id"]
        text = await produced(sluice, stream_id)
        for seed in range(10):
            follower, poller = Reader(), Reader()
            await follow(streaming, stream_id, random.Random(seed), follower)
            await poll(answering, stream_id, random.Random(seed), poller)
            assert follower.text == poller.text == text


async def test_resuming_live_at_every_offset(sluice: Sluice) -> None:
    body = start_body("demo?tokens=100&rate=200", pacing={"flush_interval_ms": 0})
    async with serving(stream.build(sluice.services)) as url:
        started = await sluice.api.post(
            "/v1/streams", json=body, headers={"prefer": "respond-async"}
        )
        stream_id = started.json()["id"]
        newest = -1
        tails: list[tuple[int, asyncio.Task[bytes]]] = []
        while True:
            page = (await sluice.api.get(f"/v1/streams/{stream_id}/chunks?after={newest}")).json()
            for after in range(newest + 1, page["next"] + (not page["closed"])):
                path = f"/v1/streams/{stream_id}/events?after={after}"
                tails.append((after, asyncio.create_task(read_some(url, path, 10**9))))
            newest = page["next"]
            if page["closed"]:
                break
            await asyncio.sleep(0.01)
        records = (await sluice.services.log.read(StreamKey("demo", stream_id))).records
        assert [after for after, _ in tails] == list(range(newest))
        for after, tail in tails:
            reader = Reader(ids=[after])
            reader.take(await tail)
            assert reader.done
            assert reader.text == "".join(r.text for r in records if r.seq > after)


async def test_a_follower_that_came_first_sees_everything(sluice: Sluice) -> None:
    """It asks when there is only the opened record: the model has not said a word yet."""
    body = start_body("demo?tokens=20&rate=100&ttft=300")
    started = await sluice.api.post("/v1/streams", json=body, headers={"prefer": "respond-async"})
    stream_id = started.json()["id"]
    answer = await sluice.stream.get(f"/v1/streams/{stream_id}/events")
    reader = Reader()
    reader.take(answer.content)
    assert reader.ids[0] == 0
    assert reader.done
    assert reader.text == await produced(sluice, stream_id)
