"""Starting: what comes before a stream has a producer.

allowed? → parent's conversation → redaction of prompts → quotas → open
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from shared import authority, trace
from shared.authority import Caller, may_see
from shared.breaker import Breakers
from shared.errors import (
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    PolicyViolated,
    TooLarge,
    Unavailable,
)
from shared.idempotency import Idempotency
from shared.lifecycle import Lifecycle, Opening
from shared.limits import Bounds
from shared.log import HEARTBEAT_S, unknown_stream
from shared.models import Ask, Message, Models, estimate
from shared.models.fallback import Fallback
from shared.pacing import Pacing
from shared.quotas import OUTPUT_TOKENS_DEFAULT, Left, Wanted
from shared.records import Record, StreamKey, dump
from shared.redaction import PolicyViolation, redact
from shared.redaction.telling import tell_redactions
from shared.steering import cancel
from shared.tenants import Tenant

#: How long a start that is refused waits for what a parent that it has cancelled gives back at its
#: end: for the next write of that one's producer.
PARENT_S = HEARTBEAT_S + 1
PARENT_LOOK_S = 0.1
#: What one `opened` record may hold: an item has 400 KB, the conversation most of it.
OPENED_BYTES_MAX = 320 * 1024


@dataclass(frozen=True, slots=True)
class Start:
    """What a client asks for, checked. It is kept in the `opened` record."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    #: None: as the tenant's experiment has it, or else the default.
    pacing: Pacing | None = None
    throttle: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    #: Of the experiment that has paced it.
    variant: str | None = None

    def to_body(self) -> dict[str, Any]:
        body = asdict(self)
        if self.pacing:
            body["pacing"] = self.pacing.to_body()
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            model=body["model"],
            messages=tuple(Message(**message) for message in body["messages"]),
            max_tokens=body["max_tokens"],
            pacing=Pacing.from_body(body["pacing"]) if body["pacing"] else None,
            throttle=body["throttle"],
            metadata=body["metadata"],
            parent=body["parent"],
            variant=body.get("variant"),
        )

    def ask(self) -> Ask:
        """What the model is asked."""
        return Ask(self.model, self.messages, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Started:
    """A stream of ours that has just begun: `opened` is durable."""

    key: StreamKey
    opened: Record
    left: tuple[Left, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stream that an earlier request with the same Idempotency-Key began."""

    key: StreamKey


class Starting:
    """Begins streams for callers who may."""

    def __init__(self, lifecycle: Lifecycle, models: Models, breakers: Breakers) -> None:
        self._lifecycle = lifecycle
        self._log = lifecycle.log
        self._models = models
        self._breakers = breakers

    async def start(
        self,
        caller: Caller,
        start: Start,
        *,
        epoch: int,
        idempotency: Idempotency | None = None,
    ) -> Started | Replayed:
        """Begin a stream. `epoch` is 1 where the caller produces it, 0 where somebody else will.

        The claim of the idempotency key is part of the transaction that opens the stream: there is
        never one without the other. Raises `InvalidRequest`, `Forbidden` (model), `NotFound`
        (parent), `TooLarge`, `LimitExceeded`, `PolicyViolated`, `IdempotencyKeyReused`,
        `Unavailable`.
        """
        start = _within(caller.bounds, start)
        fallbacks = caller.tenant.policy.fallbacks.get(start.model, ())
        model = Fallback.of(self._models, start.model, fallbacks, self._breakers)
        try:
            await model.check()
            if start.parent:
                if idempotency and (key := await self._claimed(idempotency, caller)):
                    return Replayed(key)
                start = await self._continue_from(caller, start)
            start, redactions = _redacted(caller.tenant, start)
            try:
                outcome = await self._open(caller, start, epoch, idempotency)
            except LimitExceeded:
                if not (start.parent and await self._ends(caller, start.parent)):
                    raise
                outcome = await self._open(caller, start, epoch, idempotency)
        except (LimitExceeded, Unavailable):
            # Who only repeats a request must not be refused for what the first one took.
            if idempotency and (key := await self._claimed(idempotency, caller)):
                return Replayed(key)
            raise
        if isinstance(outcome, Started):  # else the first request has told of them
            about = {"tenant": caller.tenant.name, "model": start.model}
            tell_redactions(self._lifecycle.metrics, redactions, **about)
        return outcome

    async def _open(
        self, caller: Caller, start: Start, epoch: int, idempotency: Idempotency | None
    ) -> Started | Replayed:
        tenant = caller.tenant
        owner_tag = tenant.owner_tag(caller.identity.user)
        key = self._log.new_key(tenant.name, owner_tag, tenant.policy.retention_days)
        start, asked = _paced(caller, start, key), start.ask()
        wanted = Wanted(estimate(asked, 0).input_tokens, start.max_tokens or OUTPUT_TOKENS_DEFAULT)
        body = _opening(start) | authority.to_body(caller.identity) | trace.kept()
        opening = Opening(key, caller, epoch, body, wanted, idempotency)
        with self._lifecycle.spans.span("open stream", **key.names):
            outcome = await self._lifecycle.open(opening)
        if isinstance(outcome, StreamKey):
            return Replayed(outcome)
        opened, left = outcome
        return Started(key, opened, left)

    async def _claimed(self, idempotency: Idempotency, caller: Caller) -> StreamKey | None:
        return await idempotency.claimed(self._lifecycle.store, caller.identity)

    async def _continue_from(self, caller: Caller, start: Start) -> Start:
        """The request, with its parent's conversation and text before it.

        A parent that still runs is cancelled: behind its `cancel` there is no more text. But only
        for a request that would be accepted with the parent's text so far.
        """
        parent = StreamKey(caller.tenant.name, start.parent or "")
        if self._log.is_expired(parent) or not may_see(caller, parent):
            raise unknown_stream(parent.stream)
        _opening(_redacted(caller.tenant, await self._with_parent(parent, start))[0])
        await cancel(self._lifecycle, parent, caller)
        return await self._with_parent(parent, start)

    async def _ends(self, caller: Caller, parent: str) -> bool:
        """Whether a parent has come to its end, or does so in time."""
        key, loop = StreamKey(caller.tenant.name, parent), asyncio.get_running_loop()
        until = loop.time() + PARENT_S
        while not (await self._log.tail(key)).closes:
            if loop.time() >= until:
                return False
            await asyncio.sleep(PARENT_LOOK_S)
        return True

    async def _with_parent(self, parent: StreamKey, start: Start) -> Start:
        records = await self._log.all_records(parent)
        text = "".join(record.text for record in records)
        before = Start.from_body(records[0].body).messages
        answer = (Message("assistant", text),) if text else ()
        return replace(start, messages=before + answer + start.messages)


def _within(bounds: Bounds, start: Start) -> Start:
    """The request within what its caller may, its `max_tokens` filled in."""
    if not bounds.allows(start.model):
        raise Forbidden(f"The model '{start.model[:100]}' is not open to you.", field="model")
    most = bounds.max_tokens
    if most is not None and (start.max_tokens or 0) > most:
        raise InvalidRequest(
            f"`max_tokens` is {start.max_tokens}; your bound is {most}.",
            field="max_tokens",
            maximum=most,
        )
    return replace(start, max_tokens=start.max_tokens or most)


def _paced(caller: Caller, start: Start, key: StreamKey) -> Start:
    """The request with its pacing: its own, that of its variant, or the default."""
    experiment = caller.tenant.policy.experiment
    if start.pacing is not None or experiment is None:
        return replace(start, pacing=start.pacing or Pacing())
    variant = experiment.assign(key.tenant, caller.identity.user or key.stream)
    return replace(start, pacing=variant.pacing, variant=experiment.label(variant))


def _redacted(tenant: Tenant, start: Start) -> tuple[Start, Counter[str]]:
    """The request as the log and the model may see it, and how often each rule made it so."""
    rules, counts = tenant.policy.redaction, Counter[str]()
    if not rules.prompts:
        return start, counts

    def redacted(text: str, field: str) -> str:
        try:
            clean, found = redact(text, rules, secret=tenant.secret)
        except PolicyViolation as violation:
            raise PolicyViolated(rule=violation.rule, field=field) from None
        counts.update(found)
        return clean

    for name in start.metadata:
        redacted(name, "metadata")
    if counts:  # another name would not be the client's, and two could become one
        raise InvalidRequest(
            "A name in `metadata` holds what your tenant has redacted. Put it into a value.",
            field="metadata",
        )
    messages = tuple(replace(m, content=redacted(m.content, "messages")) for m in start.messages)
    # A client may keep the question in there, as a title.
    metadata = {name: redacted(value, "metadata") for name, value in start.metadata.items()}
    return replace(start, messages=messages, metadata=metadata), counts


def _opening(start: Start) -> dict[str, Any]:
    body = start.to_body()
    if len(dump(body).encode()) > OPENED_BYTES_MAX:
        raise TooLarge(
            f"The conversation, with its parent's, is over {OPENED_BYTES_MAX} bytes.",
            field="messages",
            maximum=OPENED_BYTES_MAX,
        )
    return body
