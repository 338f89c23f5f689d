"""A lifecycle of nothing but the log: its records and its summary, without quotas and audit.

No deployment should have it. It is what the rest is compared with.
"""

from typing import Self

from functions.wiring import Services
from shared.lifecycle import Lifecycle, Opening
from shared.past import Past
from shared.quotas import Left
from shared.records import Kind, Record, StreamKey


class Bare(Lifecycle):
    @classmethod
    def of(cls, services: Services) -> Self:
        return cls(services.lifecycle.store, services.log, services.quotas, services.audit)

    async def open(self, opening: Opening) -> tuple[Record, tuple[Left, ...]] | StreamKey:
        body = {**opening.body, "allowance": None, "takeovers": 0}
        at, by = self.log.now_ms(), self.log.new_writer()
        opened = Record(0, Kind.OPENED, opening.epoch, at, by, body=body)
        if await self.log.open(opening.key, opened):
            raise RuntimeError("somebody has this stream already")
        return opened, ()

    async def close(
        self,
        key: StreamKey,
        past: Past,  # noqa: ARG002 - it says what to settle
        closed: Record,
    ) -> Record:
        if await self.log.close(key, closed):
            raise RuntimeError("somebody has closed this stream already")
        return closed
