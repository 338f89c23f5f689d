"""The operator's command line on our model of the store."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from functions.wiring import Services
from local import cli
from local.where import Place
from shared.administration import Administration
from shared.authority import Caller
from shared.identity.keys import Key
from shared.models import Message
from shared.records import StreamKey
from shared.settings import Settings
from shared.starting import Start, Started
from shared.table import Store
from tests.model_store import ModelStore

Found = TypeVar("Found")


@dataclass(frozen=True)
class Said:
    """What a command has left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """The lines of its tables, by their columns."""
        return [re.split(r" {2,}", line.strip()) for line in self.out.splitlines() if line]


@dataclass
class Operator:
    """Types commands; `store` is what they work on."""

    store: ModelStore
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Said:
        try:
            code = cli.main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        said = self.capsys.readouterr()
        return Said(code, said.out, said.err)

    def done(self, *arguments: str) -> Said:
        """As a call, of a command that must go well."""
        said = self(*arguments)
        assert said.code == 0, said
        return said

    def key(self, tenant: str, *options: str) -> str:
        return self.done("key", "add", tenant, *options).out.strip()

    def streams(self, tenant: str, count: int = 1, **about: Any) -> list[StreamKey]:
        """Streams that are over, of a tenant that there is."""
        return [work(self.store, began(tenant, closed=True, **about)) for _ in range(count)]


@pytest.fixture
def sluice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    store = ModelStore()

    @contextmanager
    def place(*_: object, **__: object) -> Iterator[Place]:
        yield Place(store, "a test", settle_s=0, lag_s=0)

    monkeypatch.setattr("local.where.place", place)
    return Operator(store, capsys)


def work(store: Store, job: Callable[[Services], Coroutine[Any, Any, Found]]) -> Found:
    """Do something with the services on a store."""
    return asyncio.run(job(Services.on(store, Settings())))


def began(
    tenant: str, *, closed: bool, user: str | None = None
) -> Callable[[Services], Coroutine[Any, Any, StreamKey]]:
    """A stream of a tenant, that nobody produces."""

    async def begin(services: Services) -> StreamKey:
        known = await Administration(services.lifecycle.store).tenant(tenant)
        caller = Caller(Key(tenant, "test", user=user).identity(), known)
        start = Start("demo", (Message("user", "What is a sluice?"),))
        started = await services.starting.start(caller, start, epoch=1)
        assert isinstance(started, Started)
        if closed:
            await services.lifecycle.close_abandoned(started.key, started.opened)
        return started.key

    return begin
