"""Asking a provider, and looking at what comes."""

import asyncio
import threading
from collections.abc import AsyncGenerator

from shared.errors import ProviderFailed
from shared.models import Ask, Finish, Message, Provider
from shared.models.bedrock import THREAD_NAME

MODEL = "maker.model-v1:0"


def ask(prompt: str = "Say something", model: str = MODEL, max_tokens: int | None = None) -> Ask:
    return Ask(model, (Message("user", prompt),), max_tokens)


async def collect(provider: Provider, asked: Ask) -> tuple[list[str], Finish]:
    """The deltas and the finish of a whole answer, which must have the shape of one."""
    *deltas, finish = [item async for item in provider.stream(asked)]
    assert isinstance(finish, Finish)
    texts = [delta for delta in deltas if isinstance(delta, str)]
    assert len(texts) == len(deltas)
    assert all(texts)
    return texts, finish


async def until_failure(
    stream: AsyncGenerator[str | Finish, None],
) -> tuple[ProviderFailed, list[str | Finish]]:
    """The failure that ends an answer, and what came before it."""
    said: list[str | Finish] = []
    try:
        async for item in stream:
            said.append(item)  # noqa: PERF401 - a comprehension would lose it
    except ProviderFailed as failure:
        return failure, said
    raise AssertionError("it did not fail")


async def no_threads() -> None:
    """Every reading thread ends by itself, soon."""
    async with asyncio.timeout(3):
        while any(t.name == THREAD_NAME for t in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
