"""One process of a run: its clock, its way to the store, and what runs in it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from functions.wiring import Services
from shared.audit.trail import Audit
from shared.authority import Caller
from shared.errors import Unavailable
from shared.lifecycle import Lifecycle
from shared.log import Log
from shared.models import Models
from shared.quotas import Quotas
from shared.records import StreamKey
from shared.settings import Settings
from tests.simulation.store import Faults

if TYPE_CHECKING:
    from tests.simulation.world import World


class Process:
    """A function's process: its clock, its way to the store, and what runs in it."""

    def __init__(self, world: "World", name: str, *, faults: Faults, skew_s: float = 0.0) -> None:
        self.name = name
        self.skew_s = skew_s
        self._world = world
        self._dice = world.rng(name)
        self.store = world.way(name, self._dice, faults)
        self.store.kill, self.store.interrupt = self.kill, self.interrupt
        self.services = self._made()
        self.live = self.services.live
        self.log = self.services.log
        self.lifecycle = self.services.lifecycle
        self.takeovers = self.services.takeovers
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def dead(self) -> bool:
        return self.store.dead

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._world.survive(work))
        self.tasks.append(task)
        return task

    def kill(self) -> None:
        """End it at once: nothing more leaves it, not even what its tasks would still write."""
        self._world.history.add("world", "kills", self.name)
        self.store.dead = True
        self._cancel()

    def interrupt(self) -> None:
        """Tell what runs in it to stop."""
        self._world.history.add("world", "interrupts", self.name)
        self._cancel()

    def _cancel(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def caller(self, key: str) -> Caller:
        """Who asks by a key."""
        identity = await self.services.authority.identify(key)
        tenant = await self.services.authority.tenant(identity)
        return Caller(identity, tenant, self._world.setting.address)

    def _made(self) -> Services:
        """What `Services.on` makes, with nothing left to chance."""
        store, now = self.store, self._now
        log = Log(store, now=now, randomness=self._randomness)
        quotas = Quotas(store, now=now, dice=self._dice)
        audit = Audit(store, now=now, randomness=self._dice.randbytes)
        models = Models({"script": self._world.provider})
        clock = asyncio.get_running_loop().time
        made = Services.on(
            store, Settings(), models, launch=self._launch, log=log, now=now, clock=clock
        )
        lifecycle = Lifecycle(store, log, quotas, audit)
        return replace(made, lifecycle=lifecycle, quotas=quotas, audit=audit)

    async def _launch(self, key: StreamKey) -> None:
        if self.dead:
            raise Unavailable("This process is dead.")
        await self._world.launch(key)

    def _now(self) -> float:
        return self._world.setting.epoch_s + self.skew_s + asyncio.get_running_loop().time()

    def _randomness(self, count: int) -> bytes:
        drawn = self._dice.randbytes(count)
        # It may become the name of a writer.
        self._world.clocks[drawn.hex()] = self.skew_s
        return drawn
