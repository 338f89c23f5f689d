"""Seats: never more than there are, whoever comes at once and whatever happens to them."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from shared.errors import Unavailable
from shared.log import Log
from shared.records import StreamKey
from shared.seats import LEASE_S, RENEW_S, Seat, Seats
from tests.model_store import ModelStore
from tests.shared.faults import Fate, Way
from tests.simulation.clock import virtual
from tests.simulation.scripted import EPOCH_S

KEY = Log(ModelStore()).new_key("tenant", bytes(5), 30)
OTHER = Log(ModelStore()).new_key("tenant", bytes(5), 30)


class Hall:
    """The seats of one store, for as many processes as come."""

    def __init__(self) -> None:
        self.store = ModelStore()

    def now(self) -> float:
        return EPOCH_S + asyncio.get_running_loop().time()

    def seats(
        self, fate: Callable[[int], Fate] = lambda _: "ok", *, skew_s: float = 0, delay_s: float = 0
    ) -> Seats:
        way = Way(self.store, fate, delay_s=lambda: random.uniform(0, delay_s))
        return Seats(way, now=lambda: self.now() + skew_s)

    def held(self, name: str = "", key: StreamKey = KEY) -> int:
        """How many seats of this subject's row are held now."""
        found = [i for (_, pk, _), i in self.store.items.items() if pk == f"seats#{key.pk}#{name}"]
        return sum(int(item["until"]) > self.now() for item in found)

    async def take(self, limit: int, key: StreamKey = KEY) -> Seat | None:
        return await self.seats().take(key, {"": limit})


@virtual
async def test_there_are_as_many_as_may_follow_and_each_stream_has_its_own() -> None:
    hall = Hall()
    taken = [await hall.take(3) for _ in range(5)]
    assert [seat is not None for seat in taken] == [True, True, True, False, False]
    assert await hall.take(3, OTHER)


@virtual
async def test_who_leaves_makes_room() -> None:
    hall = Hall()
    first, second = await hall.take(2), await hall.take(2)
    assert first
    assert second
    await first.leave()
    assert await hall.take(2)
    assert await hall.take(2) is None
    # Who leaves again, or late, takes nobody's seat.
    await first.leave()
    assert await hall.take(2) is None
    assert await second.renew()


@virtual
async def test_who_renews_keeps_the_seat_and_who_dies_does_not() -> None:
    hall = Hall()
    alive, dead = await hall.take(2), await hall.take(2)
    assert alive
    assert dead
    for _ in range(int(LEASE_S / RENEW_S)):
        assert await hall.take(2) is None
        await asyncio.sleep(RENEW_S)
        assert await alive.renew()
    assert await hall.take(2)
    assert await hall.take(2) is None
    assert not await dead.renew()
    assert await alive.renew()


@virtual
async def test_a_seat_that_is_over_is_still_its_holders_until_somebody_takes_it() -> None:
    hall = Hall()
    late = await hall.take(1)
    assert late
    await asyncio.sleep(10 * LEASE_S)
    assert await late.renew()
    assert await hall.take(1) is None


@virtual
async def test_a_seat_that_is_renewed_while_another_reaches_for_it_stays_its_holders() -> None:
    hall = Hall()
    late = await hall.take(1)
    assert late
    await asyncio.sleep(LEASE_S)
    slow = Seats(Way(hall.store, delay_s=lambda: 1), now=hall.now)  # looks at 1 s, writes at 3 s
    reaching = asyncio.create_task(slow.take(KEY, {"": 1}))
    await asyncio.sleep(2)
    assert await late.renew()
    assert await reaching is None
    assert await late.renew()


@virtual
async def test_a_seat_of_which_the_table_has_removed_the_item_is_lost() -> None:
    hall = Hall()
    late = await hall.take(1)
    assert late
    hall.store.items.clear()
    assert not await late.renew()
    await late.leave()
    assert await hall.take(1)
    assert hall.held() == 1


@virtual
async def test_its_item_expires_with_a_seat() -> None:
    hall = Hall()
    seat = await hall.take(1)
    [item] = hall.store.items.values()
    assert item["expires_at"] == item["until"] == int(hall.now()) + LEASE_S
    await asyncio.sleep(RENEW_S)
    assert seat
    assert await seat.renew()
    [item] = hall.store.items.values()
    assert item["expires_at"] == item["until"] == int(hall.now()) + LEASE_S


@virtual
async def test_fewer_may_follow_from_now_on() -> None:
    hall = Hall()
    taken = [await hall.take(5) for _ in range(5)]
    assert await hall.take(2) is None
    for seat in taken:
        assert seat
        await seat.leave()
    assert [await hall.take(2) is not None for _ in range(3)] == [True, True, False]


BOTH = {"": 3, "user#ann": 2}


@virtual
async def test_who_follows_takes_a_seat_in_each_row() -> None:
    hall = Hall()
    anns = [await hall.seats().take(KEY, BOTH) for _ in range(3)]
    assert [seat is not None for seat in anns] == [True, True, False]
    assert await hall.seats().take(KEY, {"": 3, "user#bob": 2})
    assert await hall.seats().take(KEY, {"": 3, "user#cid": 2}) is None
    assert (hall.held(), hall.held("user#ann"), hall.held("user#cid")) == (3, 2, 0)
    assert anns[0]
    await anns[0].leave()
    assert (hall.held(), hall.held("user#ann")) == (2, 1)
    assert await hall.seats().take(KEY, BOTH)


@virtual
async def test_seats_are_renewed_together_and_given_back_one_by_one() -> None:
    hall = Hall()
    first = await hall.seats().take(KEY, BOTH)
    assert first
    await asyncio.sleep(LEASE_S)
    # Its seat among all was free, and others have it; the one of its own is still its own.
    assert all([await hall.take(3) for _ in range(3)])
    before = dict(hall.store.items)
    assert not await first.renew()
    assert hall.store.items == before
    await first.leave()
    assert (hall.held(), hall.held("user#ann")) == (3, 0)


@virtual
async def test_a_seat_is_tried_again_where_another_row_was_in_its_way() -> None:
    hall = Hall()
    slow = Seats(Way(hall.store, delay_s=lambda: 1), now=hall.now)  # looks at 1 s, writes at 3 s
    reaching = asyncio.create_task(slow.take(KEY, {"": 2, "user#ann": 1}))
    await asyncio.sleep(2)
    assert await hall.take(2)
    taken = hall.held()
    assert await reaching
    assert (taken, hall.held(), hall.held("user#ann")) == (1, 2, 1)
    # And where it has no other it has none at all.
    await asyncio.sleep(LEASE_S)
    reaching = asyncio.create_task(slow.take(KEY, {"": 2, "user#bob": 1}))
    await asyncio.sleep(2)
    assert all([await hall.take(2) for _ in range(2)])
    assert await reaching is None
    assert hall.held("user#bob") == 0


@virtual
async def test_who_cannot_give_one_back_gives_back_the_other() -> None:
    hall = Hall()
    seats = hall.seats(lambda number: "fail" if number == 3 else "ok")
    seat = await seats.take(KEY, BOTH)
    assert seat
    await seat.leave()
    assert hall.held() + hall.held("user#ann") == 1


@virtual
async def test_to_find_a_stream_full_costs_one_read() -> None:
    hall = Hall()
    for _ in range(40):
        assert await hall.take(40)
    reads, writes = hall.store.reads, hall.store.writes
    assert await hall.take(40) is None
    assert (hall.store.reads - reads, hall.store.writes - writes) == (1, 0)
    assert await hall.seats().take(KEY, {"user#ann": 1, "": 40}) is None
    assert (hall.store.reads - reads, hall.store.writes - writes) == (3, 0)


@virtual
async def test_a_crowd_fills_a_hall_and_no_more() -> None:
    hall = Hall()
    found = await asyncio.gather(
        *(hall.seats(delay_s=0.01).take(KEY, {"": 50}) for _ in range(300))
    )
    seats = [seat for seat in found if seat]
    assert len(seats) == hall.held() <= 50
    # Who is sent away comes again; after a few rounds it is full.
    for _ in range(5):
        await asyncio.gather(*(hall.seats(delay_s=0.01).take(KEY, {"": 50}) for _ in range(50)))
    assert hall.held() == 50


@virtual
async def test_a_store_that_fails_is_told() -> None:
    hall = Hall()
    with pytest.raises(Unavailable):
        await hall.seats(lambda _: "fail").take(KEY, {"": 1})
    # One whose reply was lost is free again after a while.
    with pytest.raises(Unavailable):
        await hall.seats(lambda number: "lose" if number else "ok").take(KEY, {"": 1})
    assert await hall.take(1) is None
    await asyncio.sleep(LEASE_S)
    assert await hall.take(1)


@virtual
async def test_a_renewal_whose_reply_was_lost_loses_no_seat() -> None:
    hall = Hall()
    seats = hall.seats(lambda number: "lose" if number == 2 else "ok")
    seat = await seats.take(KEY, {"": 1})
    assert seat
    await asyncio.sleep(RENEW_S)
    with pytest.raises(Unavailable):
        await seat.renew()
    await asyncio.sleep(RENEW_S)
    assert await seat.renew()
    assert await hall.take(1) is None


class Street:
    """Who comes to a hall, and how many of them sit in it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.hall = Hall()
        self.limits = Counter({"": self.dice.randint(1, 4), "user#ann": self.dice.randint(1, 3)})
        self.skew_s = self.dice.choice((0, 0, 5))
        self.sitting: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.served = 0

    async def visit(self) -> None:
        """Come, stay, fall silent and go, by a slow and failing way and by a wrong clock."""
        dice = self.dice
        await asyncio.sleep(dice.uniform(0, 400))
        skew_s = dice.uniform(-self.skew_s, self.skew_s)
        followers = dict(list(self.limits.items())[: dice.choice((1, 2))])
        seats = self.hall.seats(self._fate, skew_s=skew_s, delay_s=0.5)
        seat = await seats.take(KEY, followers)
        if seat is None:
            return
        self.served += 1
        kept = True
        for _ in range(dice.randint(0, 8)):
            with self._sitting(list(followers)):
                await asyncio.sleep(RENEW_S)
            if dice.random() < 0.1:
                # It hangs, or its process is gone; should it come back, it renews before all else.
                await asyncio.sleep(dice.choice((10, 2 * LEASE_S, 1000)))
            kept = await self._renew(seat)
            if not kept:
                break
        if kept and dice.random() < 0.7:
            await seat.leave()

    def _fate(self, number: int) -> Fate:
        # What comes of the first calls is whether there is a seat.
        faulty = number > 2 and self.dice.random() < 0.05
        return self.dice.choice(("fail", "lose")) if faulty else "ok"

    async def _renew(self, seat: Seat) -> bool:
        for _ in range(10):
            with suppress(Unavailable):
                return await seat.renew()
        return False

    @contextmanager
    def _sitting(self, rows: Iterable[str]) -> Iterator[None]:
        self.sitting.update(rows)
        self.most |= self.sitting
        yield
        self.sitting.subtract(rows)

    async def watch(self) -> None:
        while True:
            for name, limit in self.limits.items():
                assert self.hall.held(name) <= limit
            assert len(self.hall.store.items) <= self.limits.total()
            await asyncio.sleep(1)


@pytest.mark.parametrize("seed", range(100))
def test_no_schedule_gives_out_more_than_there_are(seed: int) -> None:
    street = Street(seed)

    @virtual
    async def scenario() -> None:
        watching = asyncio.create_task(street.watch())
        await asyncio.gather(*(street.visit() for _ in range(30)))
        assert not watching.done()
        watching.cancel()

    random.seed(seed)
    scenario()
    assert street.served >= street.limits[""]
    assert street.most[""] == street.limits[""]
    assert street.most["user#ann"] <= street.limits["user#ann"]
