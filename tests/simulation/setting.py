"""The tenant of one run, who may ask for it, and what of that changes on the way."""

import random
from dataclasses import dataclass
from typing import Any

from shared import tenants
from shared.identity import keys
from shared.identity.keys import Key
from shared.schema import TENANTS
from shared.table import Put
from shared.tenants import Policy
from tests.model_store import ModelStore
from tests.simulation.provider import REDACTION

TENANT = "tenant"
#: Keys by their ids: what the stream is begun by, and what it may go on by.
MAIN, OTHER = "main", "other"
#: The wall clock at the virtual time 0: in the morning, or shortly before a month is over.
MORNING_S, MIDNIGHT_S = 1_800_000_000, 1_801_439_990


@dataclass(frozen=True, slots=True)
class Setting:
    """What is so in one run. `epoch_s` is the wall clock at the virtual time 0."""

    epoch_s: int
    policy: Policy
    #: Whose the stream is, and the address that requests come from.
    user: str | None
    address: str | None
    #: When the main key expires.
    valid_until: int | None

    @classmethod
    def by(cls, dice: random.Random) -> "Setting":
        epoch_s = dice.choice((MORNING_S, MORNING_S, MIDNIGHT_S))
        plain = dice.random() < 0.3
        expires_s = dice.choice((None, None, dice.randint(2, 12), dice.randint(5, 50)))
        if plain:
            expires_s = None
        return cls(
            epoch_s=epoch_s,
            policy=Policy(pause_s=300) if plain else Policy.from_document(_document(dice)),
            user=dice.choice((None, "ann")),
            address=dice.choice((None, "203.0.113.7")),
            valid_until=None if expires_s is None else epoch_s + expires_s,
        )

    def install(self, store: ModelStore) -> None:
        """What an operator has set up before."""
        writes = [
            *tenants.adding(TENANT, self.policy, self.epoch_s * 1000),
            *keys.adding(MAIN, Key(TENANT, MAIN, user=self.user, valid_until=self.valid_until)),
            *keys.adding(OTHER, Key(TENANT, OTHER, user=self.user)),
        ]
        for write in writes:
            assert isinstance(write, Put)
            if "secret" in write.item:
                write = Put(TENANTS, write.item | {"secret": "5e" * 32})  # noqa: PLW2901
            assert store.write_now(write) is None


def _document(dice: random.Random) -> dict[str, Any]:
    """What the tenant wants: limits small enough to be met, in some runs."""
    return {
        "limits": {
            "streams_at_once": dice.choice((None, 1, 2, 4)),
            "starts_per_minute": dice.choice((None, None, 6)),
            "tokens_per_minute": dice.choice((None, None, 2000)),
            "tokens_per_day": dice.choice((None, None, 100, 400, 4000)),
        },
        "user_limits": {
            "streams_at_once": dice.choice((None, None, 2)),
            "tokens_per_month": dice.choice((None, None, None, 300)),
        },
        "address_limits": {"starts_per_minute": dice.choice((None, None, 4))},
        "shards": dice.choice((1, 1, 3)),
        "takeovers": dice.choice((0, 1, 3, 3)),
        "pause_s": dice.choice((60, 300)),
        "on_quota": dice.choice(("close", "pause")),
        "on_outage": dice.choice(("refuse", "allow")),
        "redaction": REDACTION | {"prompts": dice.random() < 0.5} if dice.random() < 0.5 else {},
    }
