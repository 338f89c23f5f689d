"""The permit of a running stream: it ends when it must, and not because the store is away."""

import asyncio

import pytest

from shared import authority
from shared.authority import Caller
from shared.errors import Unavailable
from shared.identity.keys import CACHE_S
from shared.permit import NOTICE_S, STALE_S, Permit
from tests.simulation.clock import virtual
from tests.simulation.scripted import EPOCH_S, TENANT, Stage


def permit(stage: Stage, caller: Caller) -> Permit:
    return Permit(stage.authority, TENANT, authority.to_body(caller.identity))


@virtual
async def test_what_is_good_lets_a_stream_go_on() -> None:
    stage = Stage()
    given = permit(stage, stage.caller)
    for _ in range(100):
        assert await given.ended() is None
        await asyncio.sleep(7)
    assert given.expires_at is None
    assert not given.notice_due()


@virtual
async def test_it_ends_at_the_moment_that_the_credential_expires() -> None:
    stage = Stage()
    given = permit(stage, stage.caller_by("short", valid_until=EPOCH_S + 40))
    await asyncio.sleep(39.999)
    assert await given.ended() is None
    await asyncio.sleep(0.001)
    assert await given.ended() == "expired"


@virtual
async def test_it_ends_soon_after_the_credential_was_revoked() -> None:
    stage = Stage()
    caller = stage.caller_by("second")
    given = permit(stage, caller)
    assert await given.ended() is None
    await stage.revoke(caller)
    await asyncio.sleep(CACHE_S - 0.001)
    assert await given.ended() is None
    await asyncio.sleep(0.001)
    assert await given.ended() == "revoked"


@virtual
async def test_it_ends_with_a_suspension_and_comes_back_after_it() -> None:
    stage = Stage()
    given = permit(stage, stage.caller)
    stage.change(suspended=True)
    assert await given.ended() == "suspended"
    stage.change(suspended=False)
    await asyncio.sleep(CACHE_S)
    assert await given.ended() is None


@virtual
async def test_of_a_key_that_is_gone_or_was_never_named_there_is_none() -> None:
    stage = Stage()
    assert await Permit(stage.authority, TENANT, {"credential": "key:gone"}).ended() == "revoked"
    assert await Permit(stage.authority, TENANT, {}).ended() == "revoked"


@virtual
async def test_another_credential_renews_it() -> None:
    stage = Stage()
    given = permit(stage, stage.caller_by("short", valid_until=EPOCH_S + 1))
    await asyncio.sleep(1)
    assert await given.ended() == "expired"
    given.renew(authority.to_body(stage.caller_by("long", valid_until=EPOCH_S + 9).identity))
    assert await given.ended() is None
    assert given.expires_at == EPOCH_S + 9


@virtual
async def test_while_the_store_is_away_what_was_known_counts_for_a_while() -> None:
    stage = Stage()
    given = permit(stage, stage.caller)
    assert await given.ended() is None
    stage.store.unreadable = True
    await asyncio.sleep(CACHE_S - 1)
    assert await given.ended() is None  # it need not even ask
    await asyncio.sleep(STALE_S)
    assert await given.ended() is None
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable):
        await given.ended()
    stage.store.unreadable = False
    assert await given.ended() is None


# Found by the simulation: with the store away, a suspended tenant's stream went on.
@pytest.mark.parametrize("reason", ["suspended", "revoked"])
@virtual
async def test_what_had_ended_does_not_come_back_because_the_store_is_away(reason: str) -> None:
    stage = Stage()
    given = permit(stage, stage.caller)
    if reason == "suspended":
        stage.change(suspended=True)
    else:
        await stage.revoke(stage.caller)
    assert await given.ended() == reason
    await asyncio.sleep(CACHE_S - 1)
    assert await given.ended() == reason
    stage.store.unreadable = True
    await asyncio.sleep(STALE_S)
    assert await given.ended() == reason
    given.renew(authority.to_body(stage.caller_by("second").identity))
    assert await given.ended() is None


# Found by the simulation: who had to look up a key was not stopped by its expiry meanwhile.
@virtual
async def test_what_expires_while_it_is_looked_up_has_expired() -> None:
    stage = Stage()
    given = permit(stage, stage.caller_by("short", valid_until=EPOCH_S + 1))
    stage.store.read_s = 0.6
    assert await given.ended() == "expired"


@virtual
async def test_what_expires_while_the_store_is_away_has_expired() -> None:
    stage = Stage()
    given = permit(stage, stage.caller_by("short", valid_until=EPOCH_S + 21))
    for wait_s in (0, 19):
        await asyncio.sleep(wait_s)
        assert await given.ended() is None
    await asyncio.sleep(1.5)
    stage.store.read_s, stage.store.unreadable = 1.0, True
    assert await given.ended() == "expired"


# Found by the simulation: it wrote by a key that had been revoked long before.
@virtual
async def test_who_has_never_been_told_may_not_go_on_while_the_store_is_away() -> None:
    stage = Stage()
    given = permit(stage, stage.caller)
    stage.store.unreadable = True
    with pytest.raises(Unavailable):
        await given.ended()


@virtual
async def test_clients_are_told_half_a_minute_before_once_for_each_credential() -> None:
    stage = Stage()
    given = permit(stage, stage.caller_by("short", valid_until=EPOCH_S + 100))
    await asyncio.sleep(100 - NOTICE_S - 0.001)
    assert not given.notice_due()
    await asyncio.sleep(0.001)
    assert [given.notice_due() for _ in range(3)] == [True, False, False]
    given.renew(authority.to_body(stage.caller_by("next", valid_until=EPOCH_S + 99).identity))
    assert [given.notice_due() for _ in range(3)] == [True, False, False]
    given.renew(authority.to_body(stage.caller_by("long", valid_until=EPOCH_S + 900).identity))
    assert not given.notice_due()
