"""Parts for tests that say exactly what happens, where a simulation leaves it to chance."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from shared import authority, tenants
from shared.answer import Work
from shared.audit import Chain, Entry
from shared.audit.trail import Audit
from shared.authority import Authority, Caller
from shared.breaker import Breakers
from shared.errors import Unavailable
from shared.identity import Identity, keys
from shared.identity.keys import Key, Keys
from shared.lifecycle import Lifecycle, Opening
from shared.live import Live
from shared.log import Log
from shared.models import Ask, Continuation, Finish, Message, Usage
from shared.models.fallback import Candidate, Fallback
from shared.pacing import Pacing
from shared.past import Past
from shared.producer import Producer
from shared.quotas import Quotas, Wanted
from shared.records import Item, Kind, Record, StreamKey
from shared.redaction import Redactor, Validator
from shared.schema import STREAMS, TENANTS, Table
from shared.starting import Start
from shared.table import Conflict, Found, Query, Write
from shared.takeover import Takeovers
from shared.tenants import Policy, Tenant, Tenants
from tests.model_store import ModelStore

#: The wall clock at the virtual time 0.
EPOCH_S = 1_800_000_000
TENANT = "tenant"
ASK = Ask("scripted", (Message("user", "Count."),))
START = Start(model="scripted", messages=ASK.messages)
DONE = Finish("stop", Usage(1, 2))
AT_ONCE = Pacing((0, 0), 0)
WANTED = Wanted(input_tokens=2, output_tokens=100)


class ScriptedStore(ModelStore):
    """A model of the store that fails as it is told.

    The next writes meet `fates`: "fail" before they are done, "lose" their reply after. Reads that
    may be stale do not see the records in `hidden`. Every write takes `write_s` seconds, one of a
    transaction `transact_s` more, and every read `read_s`. With `broken` no write is done, with
    `unreadable` nothing is read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fates: deque[Literal["ok", "fail", "lose"]] = deque()
        self.hidden: set[int] = set()
        self.write_s = self.transact_s = 0.0
        self.read_s = 0.0
        self.broken = False
        self.unreadable = False

    async def write(self, write: Write) -> Item | None:
        fate = await self._fate()
        held = await super().write(write)
        self._reply(fate)
        return held

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        await asyncio.sleep(self.transact_s)
        fate = await self._fate()
        conflict = await super().transact(writes, token)
        self._reply(fate)
        return conflict

    async def get(self, table: Table, key: Item) -> Item | None:
        await self._read()
        return await super().get(table, key)

    async def query(self, query: Query) -> Found:
        await self._read()
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

    async def _read(self) -> None:
        if self.read_s:
            await asyncio.sleep(self.read_s)
        if self.unreadable:
            raise Unavailable("It was told not to be read.")


class ScriptedModel:
    """A provider that yields, waits (numbers, in seconds) and raises what it is told to."""

    def __init__(
        self, *steps: str | float | Finish | Exception, goes_on: Continuation = Continuation.PROMPT
    ) -> None:
        self._steps = steps
        self._goes_on = goes_on
        #: What it was asked last.
        self.asked: Ask | None = None
        #: How many deltas were taken from it; and whether it was closed.
        self.taken = 0
        self.closed = False

    def validate(self, model: str) -> None:
        pass

    def continuation(self, model: str) -> Continuation:
        return self._goes_on

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        self.asked = ask
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
    """A stream, and what it takes to begin, produce, steer and follow it in one process.

    Its tenant wants what the document `policy` says. Who asks for it is `caller`, by the key
    `stage`.
    """

    def __init__(self, **policy: Any) -> None:
        loop = asyncio.get_running_loop()
        dice = random.Random(1)
        self.store = ScriptedStore()
        self.log = Log(self.store, now=self.now, randomness=dice.randbytes)
        self.quotas = Quotas(self.store, now=self.now, dice=dice)
        self.audit = Audit(self.store, now=self.now, randomness=dice.randbytes)
        self.lifecycle = Lifecycle(self.store, self.log, self.quotas, self.audit)
        #: The streams that were to be produced by somebody else, who never comes.
        self.launched: list[StreamKey] = []
        self.launch_s = 0.0
        self.takeovers = Takeovers(self.lifecycle, self._launch)
        known = Tenants(self.store, clock=loop.time)
        self.authority = Authority(self.store, known, now=self.now, clock=loop.time)
        self.breakers = Breakers(self.store, now=self.now)
        self.live = Live()
        self.do(tenants.adding(TENANT, Policy.from_document(policy), self.log.now_ms()))
        self.caller = self.caller_by("stage")
        self.key = self.new_key()
        self.opened = self.record(0, Kind.OPENED, body=self.body())

    def now(self) -> float:
        return EPOCH_S + asyncio.get_running_loop().time()

    def do(self, writes: Iterable[Write]) -> None:
        """Write what an operator would have written before."""
        for write in writes:
            assert self.store.write_now(write) is None

    # The tenant and its callers

    @property
    def tenant(self) -> Tenant:
        item = self.store.items[TENANTS.name, TENANT, "settings"]
        return Tenant.from_item(item)

    def change(self, *, suspended: bool = False, **policy: Any) -> None:
        """Change what the tenant wants, or suspend it."""
        document = self.tenant.policy.to_document() | policy
        changed = Policy.from_document(document)
        self.do(tenants.changing(self.tenant, changed, suspended=suspended))

    def caller_by(self, key_id: str, *, address: str | None = None, **about: Any) -> Caller:
        """Who asks by a key of the tenant that is made for that."""
        key = Key(TENANT, key_id, **about)
        self.do(keys.adding(f"{key_id}'s secret", key))
        return Caller(key.identity(), self.tenant, address)

    async def revoke(self, caller: Caller) -> None:
        """End the key that a caller asks by."""
        key_id = caller.identity.credential.removeprefix("key:")
        self.do(await Keys(self.store).revoking(TENANT, key_id, int(self.now())))

    # The stream

    def new_key(self, user: str | None = None) -> StreamKey:
        """The name of a stream that is this user's, or no user's."""
        tenant = self.tenant
        return self.log.new_key(TENANT, tenant.owner_tag(user), tenant.policy.retention_days)

    def body(self, identity: Identity | None = None) -> dict[str, Any]:
        """What an `opened` record says of what was asked, and by whom."""
        return START.to_body() | authority.to_body(identity or self.caller.identity)

    def opening(self, caller: Caller | None = None, **changes: Any) -> Opening:
        """What opens the stream for a caller."""
        caller = caller or self.caller
        opening = Opening(self.key, caller, 1, self.body(caller.identity), WANTED)
        return replace(opening, **changes)

    async def begin(self, caller: Caller | None = None, **changes: Any) -> "Stage":
        outcome = await self.lifecycle.open(self.opening(caller, **changes))
        assert isinstance(outcome, tuple)
        # As whoever reads it has it.
        self.opened = Record.from_item(outcome[0].to_item(self.key))
        return self

    def record(self, seq: int, kind: Kind, *, epoch: int = 1, by: str = "", **more: Any) -> Record:
        """A record of now."""
        return Record(seq, kind, epoch, self.log.now_ms(), by or self.log.new_writer(), **more)

    async def write(self, *texts: str) -> None:
        """Append chunks, as the stream's first producer would."""
        for text in texts:
            seq = (await self.log.tail(self.key)).seq + 1
            await self.append(self.record(seq, Kind.TEXT, by=self.opened.by, text=text))

    async def append(self, record: Record) -> None:
        assert await self.log.append(self.key, record) == record

    async def close(self, body: Mapping[str, Any]) -> Record:
        """Close the stream, as somebody else would. Returns who has the slot."""
        seq = (await self.log.tail(self.key)).seq + 1
        closed = self.record(seq, Kind.CLOSED, epoch=2, body=body)
        return await self.lifecycle.close(self.key, Past.of((self.opened,)), closed)

    async def _launch(self, key: StreamKey) -> None:
        await asyncio.sleep(self.launch_s)
        self.launched.append(key)

    def producer(
        self,
        model: ScriptedModel,
        *,
        epoch: int = 1,
        by: str | None = None,
        pacing: Pacing = AT_ONCE,
        throttle: bool = False,
        deadline: float | None = None,
        records: Sequence[Record] = (),
        validators: Sequence[Validator] = (),
        **budget: Any,
    ) -> Producer:
        """A producer by what the tenant wants now, of a stream with these records, or a new one.

        `budget`: `chars_max` and `short` of `Work`.
        """
        tenant = self.tenant
        past = Past.of(records or (self.opened,))
        work = Work(
            past=past,
            model=Fallback([Candidate("scripted", model, "scripted")], self.breakers),
            ask=ASK,
            redactor=Redactor(tenant.policy.redaction, secret=tenant.secret, validators=validators),
            pacing=pacing,
            throttle=throttle,
            **budget,
        )
        return Producer(
            self.takeovers,
            self.authority,
            self.live,
            self.key,
            work,
            epoch=epoch,
            by=by or self.opened.by,
            deadline=deadline,
        )

    async def produce(self, *steps: str | float | Finish | Exception, **how: Any) -> Producer:
        """Produce the stream to its end."""
        producer = self.producer(ScriptedModel(*steps), **how)
        await producer.run((self.opened,))
        return producer

    async def succeed(self, model: ScriptedModel, **how: Any) -> Producer:
        """Go on with the stream in the next epoch, to its end."""
        records = await self.records()
        how = {"epoch": records[-1].epoch + 1, "by": self.log.new_writer(), **how}
        producer = self.producer(model, records=records, **how)
        await producer.run(records)
        return producer

    def start(self, model: ScriptedModel, **how: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self.producer(model, **how).run((self.opened,)))

    # What there is afterwards

    async def records(self) -> tuple[Record, ...]:
        return (await self.log.read(self.key)).records

    async def told(self) -> list[str]:
        """The log in short: the text of chunks, the kind of all else, and how it ended."""
        return [_short(record) for record in await self.records()]

    def streams(self) -> int:
        """How many streams there are."""
        return sum(table == STREAMS.name and seq == 0 for table, _, seq in self.store.items)

    async def entries(self) -> list[Entry]:
        """The entries of the stream's audit, which must be as they were written."""
        chain = Chain.of(self.key)
        assert (await self.audit.verify(chain)).fault is None
        return (await self.audit.read(chain))[0]

    async def audited(self) -> list[str]:
        """What the stream's audit tells, in short."""
        return [f"{entry.event} {entry.outcome}" for entry in await self.entries()]

    def counters(self, subject: str = "#0") -> Item:
        """The counters of the tenant, or of another subject whose key ends so; none are none."""
        found = [
            item
            for (_, pk, what), item in self.store.items.items()
            if what == "counters" and str(pk).endswith(subject)
        ]
        return found[0] if found else {}


def _short(record: Record) -> str:
    if record.closes:
        error = record.body["error"] or {}
        return f"{record.body['status']} {error.get('type', '').rpartition(':')[2]}".strip()
    if record.parked:
        return f"parked {record.body['reason']}"
    if record.kind == Kind.VACANT:
        return f"vacant {record.body['reason']}"
    return record.text or str(record.kind)
