"""An answer as its model gives it: read into the text held, up to its end.

Why it ends is decided here, once, whoever brings it about: the model, a bound, the tenant's rules;
or the producer, for a control or for want of time.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from typing import Any

from shared.errors import ProviderFailed, SluiceError
from shared.held import Held
from shared.live import Channel
from shared.log import closing
from shared.logger import logger
from shared.models import Ask, Continuation, Finish, Usage, continued, estimate
from shared.models.fallback import Fallback
from shared.pacing import Pacer, Pacing
from shared.past import Past
from shared.pulse import Pulse
from shared.records import FinishReason, Status
from shared.redaction import PolicyViolation, Redactor
from shared.spans import UNTOLD, Role, Span, Spans


class End(Enum):
    """Why there will be no more text."""

    FINISHED = auto()
    CANCELLED = auto()
    FAILED = auto()
    #: The answer has come to its bound.
    LENGTH = auto()
    #: The tenant's rules do not let the answer go on.
    POLICY = auto()
    #: Somebody has paused it.
    PAUSED = auto()
    #: Another producer is to go on.
    LEFT = auto()


#: What a control has asked for: nothing is written that the model may have said beyond it.
STOPPED = (End.CANCELLED, End.PAUSED)

#: What OpenTelemetry calls a provider, where it is not as we do.
_PROVIDERS = {"bedrock": "aws.bedrock"}


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to produce: the stream's past, and what its tenant has made of it.

    Where tokens are limited `chars_max` is the most that the model may say. `short` is whether the
    tenant's budget leaves less than was asked for, and `pauses` whether the stream then waits for
    more.
    """

    past: Past
    model: Fallback
    ask: Ask
    redactor: Redactor
    pacing: Pacing
    throttle: bool
    chars_max: int | None = None
    short: bool = False
    pauses: bool = False


class Answer:
    """The answer of one producer, in so far as its model says it. Call `begin()` once."""

    def __init__(self, work: Work, pacer: Pacer, spans: Spans = UNTOLD) -> None:
        #: Why there will be no more text, once there is a reason.
        self.end: End | None = None
        #: What went wrong, where it failed.
        self.error: SluiceError | None = None
        #: What it has said and nobody has written.
        self.held = Held(work.redactor, pacer, work.chars_max)
        self.pulse = Pulse()
        self._redactor = work.redactor
        self._ask = work.ask
        self._model = work.model
        self._short = work.short
        self._throttle = work.throttle
        self._finish: Finish | None = None
        self._reading: asyncio.Task[None] | None = None
        self._spans = spans

    def begin(self, said: str, channel: Channel) -> None:
        """Have the model go on behind what was `said` before, if anything was."""
        self._ask = replace(self._ask, said=said)
        self.pulse.asked()
        self._reading = asyncio.create_task(self._measured(channel))

    async def close(self) -> None:
        """Ask the model no further."""
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def stopped(self) -> bool:
        """Whether a control has asked for its end: nothing more of it is written."""
        return self.end in STOPPED

    @property
    def over(self) -> bool:
        """Whether there is nothing left to write but the end."""
        return self.stopped or (self.end is not None and not self.held)

    def stop(self, end: End, error: SluiceError | None = None) -> None:
        """Let there be no more text. What came first stands."""
        # But a control is in the log, before whatever else would be.
        if end in STOPPED:
            self.end, self.error = end, None
        elif self.end is None:
            self.end, self.error = end, error
            # What is kept back by the redaction is not written by who leaves: it may be half of a
            # value, and whoever goes on will see all of it.
            if end not in (End.POLICY, End.LEFT):
                self._flush()
        self.held.changed.set()

    def halt(self, end: End, error: SluiceError | None = None) -> None:
        """Stop, and the model too: it may be faster than our writes, and never end."""
        self.stop(end, error)
        if self._reading:
            self._reading.cancel()

    @property
    def reason(self) -> str | None:
        """Why it has ended, where it did not fail."""
        if self.end is End.POLICY:
            return FinishReason.POLICY
        said = self._finish.reason if self._finish else FinishReason.LENGTH
        if self.end not in (End.FINISHED, End.LENGTH):
            return None
        return FinishReason.QUOTA if said == FinishReason.LENGTH and self._short else said

    @property
    def usage(self) -> Usage:
        """What it has cost."""
        if self._finish and self._finish.usage:
            return self._finish.usage
        if self._reading is None or (self.end is End.FAILED and not self.held.said_chars):
            return Usage(0, 0)
        return estimate(continued(self._ask, self._model.continuation), self.held.said_chars)

    def closing(self, before: Usage) -> dict[str, Any]:
        """How it has ended: the body of its stream's last record. `before` is what producers before
        have used.
        """
        usage, model = asdict(before + self.usage), self.stand_in
        if self.end is End.CANCELLED:
            return closing(Status.CANCELLED, FinishReason.CANCELLED, usage=usage, model=model)
        if reason := self.reason:
            return closing(Status.COMPLETED, reason, usage=usage, model=model)
        error = (self.error or SluiceError()).brief()
        return closing(Status.FAILED, FinishReason.ERROR, usage=usage, error=error, model=model)

    @property
    def stand_in(self) -> str | None:
        """The model that answers, where it is not the one that was asked for."""
        return self._model.model if self._model.model != self._ask.model else None

    @property
    def continuation(self) -> Continuation:
        """How the model goes on with what was said before."""
        return self._model.continuation

    @property
    def redactions(self) -> Mapping[str, int]:
        """How often each rule has replaced something, or ended it."""
        return self._redactor.counts

    async def _measured(self, channel: Channel) -> None:
        """Read the model, and tell what became of it."""
        with self._spans.span("chat", Role.CLIENT) as span:
            try:
                await self._read(channel)
            finally:
                if span:
                    self._describe(span)

    def _describe(self, span: Span) -> None:
        """Say of the model's call what there are names for in OpenTelemetry's GenAI conventions."""
        provider, _, asked = self._ask.model.partition("?")[0].rpartition("/")
        answering = self._model.model.partition("?")[0].rpartition("/")[2]
        span.name = f"chat {asked}"
        span.attributes |= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider or asked),
            "gen_ai.request.model": asked,
            "gen_ai.response.model": answering,
            "gen_ai.usage.input_tokens": self.usage.input_tokens,
            "gen_ai.usage.output_tokens": self.usage.output_tokens,
        }
        if self._ask.max_tokens is not None:
            span.attributes["gen_ai.request.max_tokens"] = self._ask.max_tokens
        if self._finish:
            span.attributes["gen_ai.response.finish_reasons"] = (self._finish.reason,)
        if (waited_s := self.pulse.waited_s) is not None:
            span.attributes["gen_ai.response.time_to_first_chunk"] = waited_s
            span.event("first token", waited_s)
        if self.error:
            span.failed = self.error.slug

    async def _read(self, channel: Channel) -> None:
        """Hear the model out, whatever becomes of it: the stream must end."""
        try:
            await self._hear(channel)
        except SluiceError as error:
            self.stop(End.FAILED, error)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            # Not we are cancelled, but something that the provider waited for.
            self.stop(End.FAILED, SluiceError())
        except Exception as error:  # noqa: BLE001 - a provider's mistake
            logger.error("provider raised", extra={"error": type(error).__name__})
            self.stop(End.FAILED, SluiceError())

    async def _hear(self, channel: Channel) -> None:
        """Read the model into the text held, never further ahead than may be held."""
        goes_on = bool(self._ask.said)
        async with aclosing(self._model.stream(self._ask)) as deltas:
            async for delta in deltas:
                if goes_on:
                    goes_on = False
                    self._go_on()
                if isinstance(delta, Finish):
                    self._finish = delta
                    self.stop(End.FINISHED)
                elif not self.end:
                    self.pulse.heard(len(delta))
                    self._take(delta)
                if self.end:
                    return
                await self.held.room()
                if self._throttle:
                    await channel.room()
        raise ProviderFailed("The model's answer broke off.", code="cut", retryable=True)

    def _go_on(self) -> None:
        """Go on behind what was said before, as the model that answers does."""
        try:
            self.held.go_on(self._ask.said, self.continuation)
        except PolicyViolation:
            self.stop(End.POLICY)

    def _take(self, delta: str) -> None:
        """Take a delta in, as far as the tenant's budget and rules let it."""
        try:
            if not self.held.feed(delta):
                self.stop(End.LENGTH)
        except PolicyViolation:
            self.stop(End.POLICY)

    def _flush(self) -> None:
        """Let through what was kept back for what might have followed it."""
        try:
            self.held.finish(whole=self.end is End.FINISHED)
        except PolicyViolation:
            self.end, self.error = End.POLICY, None
        except ProviderFailed as error:
            self.end, self.error = End.FAILED, error
