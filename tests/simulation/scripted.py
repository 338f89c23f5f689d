"""Parts for tests that say exactly what happens, where a simulation leaves it to chance."""

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from shared.errors import Unavailable
from shared.live import Live
from shared.log import Log
from shared.models import Ask, Finish, Message, Usage
from shared.pacing import Pacing
from shared.producer import Producer
from shared.records import Item, Kind, Record, dump
from shared.starting import Start
from shared.table import Conflict, Found, Query, Write
from tests.model_store import ModelStore

ASK = Ask("scripted", (Message("user", "Count."),))
START = Start(model="scripted", messages=ASK.messages)
DONE = Finish("stop", Usage(1, 2))
AT_ONCE = Pacing((0, 0), 0)


class ScriptedStore(ModelStore):
    """A model of the store that fails as it is told.

    The next writes meet `fates`: "fail" before they are done, "lose" their reply after. Reads that
    may be stale do not see the records in `hidden`. Every write takes `write_s` seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fates: deque[Literal["ok", "fail", "lose"]] = deque()
        self.hidden: set[int] = set()
        self.write_s = 0.0
        self.broken = False

    async def write(self, write: Write) -> Item | None:
        fate = await self._fate()
        held = await super().write(write)
        self._reply(fate)
        return held

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        fate = await self._fate()
        conflict = await super().transact(writes, token)
        self._reply(fate)
        return conflict

    async def query(self, query: Query) -> Found:
        found = await super().query(query)
        if query.consistent:
            return found
        return Found([i for i in found.items if i.get("seq") not in self.hidden], found.more)

    async def _fate(self) -> str:
        await asyncio.sleep(self.write_s)
        fate = self.fates.popleft() if self.fates else "ok"
        if self.broken or fate == "fail":
            raise Unavailable("It was told to fail.")
        return fate

    def _reply(self, fate: str) -> None:
        if fate == "lose":
            raise Unavailable("It was told to lose its reply.")


class ScriptedModel:
    """A provider that yields, waits (numbers, in seconds) and raises what it is told to."""

    def __init__(self, *steps: str | float | Finish | Exception) -> None:
        self._steps = steps
        #: How many deltas were taken from it; and whether it was closed.
        self.taken = 0
        self.closed = False

    def validate(self, model: str) -> None:
        pass

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        try:
            for step in self._steps:
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                elif isinstance(step, Exception):
                    raise step
                else:
                    self.taken += 1
                    yield step
        finally:
            self.closed = True


class Stage:
    """A stream, and what it takes to produce and to follow it in one process."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.store = ScriptedStore()
        self.log = Log(
            self.store,
            now=lambda: 1_800_000_000 + loop.time(),
            randomness=random.Random(1).randbytes,
        )
        self.live = Live()
        self.key = self.log.new_key("tenant")
        self.opened = self.record(0, Kind.OPENED, body=json.loads(dump(START.to_body())))

    def record(self, seq: int, kind: Kind, *, epoch: int = 1, by: str = "", **more: Any) -> Record:
        """A record of now."""
        return Record(seq, kind, epoch, self.log.now_ms(), by or self.log.new_writer(), **more)

    async def begin(self) -> "Stage":
        assert await self.log.open(self.key, self.opened) is None
        return self

    async def write(self, *texts: str) -> None:
        """Append chunks, as the stream's first producer would."""
        for text in texts:
            seq = (await self.log.tail(self.key)).seq + 1
            await self.append(self.record(seq, Kind.TEXT, by=self.opened.by, text=text))

    async def append(self, record: Record) -> None:
        assert await self.log.append(self.key, record) == record

    def producer(
        self,
        model: ScriptedModel,
        *,
        epoch: int = 1,
        by: str | None = None,
        pacing: Pacing = AT_ONCE,
        throttle: bool = False,
        deadline: float | None = None,
    ) -> Producer:
        return Producer(
            self.log,
            self.live,
            self.key,
            provider=model,
            ask=ASK,
            pacing=pacing,
            throttle=throttle,
            epoch=epoch,
            by=by or self.opened.by,
            deadline=deadline,
        )

    async def produce(self, *steps: str | float | Finish | Exception, **how: Any) -> Producer:
        """Produce the stream to its end."""
        producer = self.producer(ScriptedModel(*steps), **how)
        await producer.run((self.opened,))
        return producer

    def start(self, model: ScriptedModel, **how: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self.producer(model, **how).run((self.opened,)))

    async def records(self) -> tuple[Record, ...]:
        return (await self.log.read(self.key)).records

    async def told(self) -> list[str]:
        """The log in short: the text of chunks, the kind of all else, and how it ended."""
        return [_short(record) for record in await self.records()]


def _short(record: Record) -> str:
    if record.closes:
        error = record.body["error"] or {}
        return f"{record.body['status']} {error.get('type', '').rpartition(':')[2]}".strip()
    return record.text or str(record.kind)
