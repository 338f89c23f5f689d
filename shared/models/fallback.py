"""Fallback: several models for one answer, of which the first that can answer does.

A model is passed over while its breaker is open, and given up when it fails, or lets its first
token wait too long, before anything was sent. After the first delta every failure is final.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Self

from shared.breaker import Breakers, Call
from shared.errors import InvalidRequest, ProviderFailed, Unavailable
from shared.logger import logger
from shared.models import FALLBACKS_MAX, Ask, Continuation, Finish, Models, Provider, continued


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model by its full name, and its provider, which knows it as `name`."""

    model: str
    provider: Provider
    name: str

    @property
    def continuation(self) -> Continuation:
        return self.provider.continuation(self.name)


class Fallback:
    """The models for one stream, which streams as a `Provider` does.

    A failure that is retryable is the model's fault, and counts for its breaker. One that is
    `refused` is the request's, so no other model is asked. After any other failure the next is.
    """

    def __init__(self, candidates: Sequence[Candidate], breakers: Breakers) -> None:
        #: The full name of the model that answers, and how it goes on with what was said before;
        #: until one answers, of the first one that is asked.
        self.model = candidates[0].model
        self.continuation = candidates[0].continuation
        self._candidates = tuple(candidates)
        self._breakers = breakers

    @classmethod
    def of(
        cls,
        models: Models,
        model: str,
        fallbacks: Sequence[str],
        breakers: Breakers,
        *,
        begun_by: str | None = None,
    ) -> Self:
        """`model`, and in their order up to FALLBACKS_MAX others; first the one of them by which
        the answer was begun.

        Raises `InvalidRequest` where nothing serves `model`; a fallback that nothing serves is
        left out, for it must not do harm where it is not even needed.
        """
        candidates = [Candidate(model, *models.resolve(model))]
        others = [name for name in dict.fromkeys(fallbacks) if name != model]
        for name in others[:FALLBACKS_MAX]:
            with suppress(InvalidRequest):
                candidates.append(Candidate(name, *models.resolve(name)))
        candidates.sort(key=lambda candidate: candidate.model != begun_by)
        return cls(candidates, breakers)

    async def check(self) -> None:
        """Raise `Unavailable`, with the time to wait, while every breaker is open."""
        if wait_s := await self._wait_s(self._candidates):
            raise _unavailable(wait_s)

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        """Deltas and one `Finish`, all of one model, whichever model `ask` names.

        Raises `ProviderFailed`, and `Unavailable` where no model was asked.
        """
        failures: list[ProviderFailed] = []
        for place, candidate in enumerate(self._candidates, 1):
            call = await self._breakers.admit(candidate.model)
            if call is None:
                continue
            begun = False
            answer = self._answer(candidate, call, ask, self._candidates[place:])
            try:
                async with aclosing(answer):
                    async for delta in answer:
                        begun, self.model = True, candidate.model
                        self.continuation = candidate.continuation
                        yield delta
            except ProviderFailed as failure:
                if begun:
                    raise
                details = {"model": candidate.model, "code": failure.code}
                logger.warning("model failed before its first token", extra=details)
                failures.append(failure)
                if failure.code == "refused":
                    break
            else:
                return
        if not failures:
            raise _unavailable(await self._wait_s(self._candidates))
        # The first that can be retried, else the first: that is the model that was asked for.
        raise max(failures, key=lambda failure: failure.retryable)

    async def _answer(
        self, candidate: Candidate, call: Call, ask: Ask, others: Sequence[Candidate]
    ) -> AsyncGenerator[str | Finish, None]:
        """What one model answers, of which its breaker is told."""
        asked = continued(replace(ask, model=candidate.name), candidate.continuation)
        deltas = candidate.provider.stream(asked)
        async with call, aclosing(deltas):
            try:
                yield await self._first(deltas, call, others)
                async for delta in deltas:
                    yield delta
            except ProviderFailed as failure:
                if failure.retryable:
                    call.failed()
                raise

    async def _first(
        self,
        deltas: AsyncGenerator[str | Finish, None],
        call: Call,
        others: Sequence[Candidate],
    ) -> str | Finish:
        """The first delta. One that is slow is waited for only where there is nobody else."""
        try:
            async with asyncio.timeout(None) as limit:
                watch = asyncio.create_task(self._watch(call, others, limit))
                try:
                    first = await anext(deltas)
                finally:
                    watch.cancel()
        except TimeoutError:
            raise ProviderFailed(
                "The model's provider did not begin to answer in time.",
                code="timeout",
                retryable=True,
            ) from None
        call.answered()
        return first

    async def _watch(self, call: Call, others: Sequence[Candidate], limit: asyncio.Timeout) -> None:
        """End the wait for a slow first delta, if another model may be asked."""
        await asyncio.sleep(self._breakers.slow_first_token_s)
        call.failed()
        if await self._wait_s(others) == 0:
            limit.reschedule(asyncio.get_running_loop().time())

    async def _wait_s(self, candidates: Sequence[Candidate]) -> float:
        """In how many seconds one of them may be asked; infinite where there is none."""
        soonest_s = math.inf
        for candidate in candidates:
            soonest_s = min(soonest_s, await self._breakers.wait_s(candidate.model))
            if soonest_s == 0:
                break
        return soonest_s


def _unavailable(wait_s: float) -> Unavailable:
    return Unavailable(
        "The model fails just now, and so does every model that may stand in for it.",
        retry_after_s=max(math.ceil(wait_s), 1),
    )
