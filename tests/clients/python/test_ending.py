"""The end of an answer that another one replaces: nothing begins before that is sure."""

import json
from collections.abc import Callable

import pytest
from sluice_client import GaveUp, Reconnecting, Refused
from sluice_client.ending import Ending
from sluice_client.following import Following
from sluice_client.machine import Ask, Lost
from sluice_client.question import Question

from tests.clients.python.world import HTML, JSON, PROBLEM, STREAM, UNAVAILABLE, Reply, World

QUESTION = Question({"model": "demo", "messages": []}, "key")
CANCEL = ("POST", f"/v1/streams/{STREAM}/cancel")
START = ("POST", "/v1/streams")

LOST = Reply(lost=Lost.CUT, headless=True)
SILENT = Reply(lost=Lost.SILENT, headless=True)
BUSY = Reply(503, PROBLEM, UNAVAILABLE)
GATEWAY = Reply(404, HTML, b"<html>")
PORTAL = Reply(200, HTML, b"<html>")
OTHER = Reply(200, JSON, b'{"id": "another", "status": "cancelled"}')
GONE = Reply(404, PROBLEM, b'{"type": "urn:sluice:problem:not-found"}')
FORBIDDEN = Reply(403, PROBLEM, b'{"type": "urn:sluice:problem:forbidden", "detail": "No."}')


def faults(*replies: Reply) -> list[Callable[[World, Ask], Reply]]:
    return [lambda _world, _ask, reply=reply: reply for reply in replies]  # type: ignore[misc]


def running(world: World, **known: object) -> Following:
    return Following(world.conditions(), QUESTION, **known)  # type: ignore[arg-type]


def requests(world: World) -> list[tuple[str, str]]:
    return [(ask.method, ask.path) for ask in world.asked]


@pytest.mark.parametrize("fault", [LOST, SILENT, BUSY, GATEWAY, PORTAL, OTHER])
def test_a_cancel_is_repeated_until_it_is_known_to_have_arrived(fault: Reply) -> None:
    world = World(*faults(fault, fault))
    world.passage.heard = True
    told = list(world.run(Ending(world.conditions(), running(world, id=STREAM))))
    assert requests(world) == [CANCEL] * 3
    assert [type(event) for event in told] == [Reconnecting] * 2


def test_who_is_not_there_any_more_is_ended() -> None:
    world = World(*faults(GONE))
    list(world.run(Ending(world.conditions(), running(world, id=STREAM))))
    assert requests(world) == [CANCEL]


def test_a_start_of_which_no_reply_was_seen_is_named_first() -> None:
    world = World(*faults(LOST, PORTAL))
    world.passage.heard = True
    replaced = running(world)
    assert isinstance(replaced.next(), Ask)  # and nothing comes of it
    list(world.run(Ending(world.conditions(), replaced)))
    assert requests(world) == [START, START, START, CANCEL]
    assert {ask.headers["Idempotency-Key"] for ask in world.asked[:3]} == {"key"}
    assert replaced.id == STREAM


def test_what_was_never_begun_or_is_over_is_left_alone() -> None:
    world = World()
    replaced = running(world)
    list(world.run(Ending(world.conditions(), replaced)))
    list(world.run(replaced))
    world.asked.clear()
    list(world.run(Ending(world.conditions(), replaced)))
    assert world.asked == []


def test_a_refusal_is_told() -> None:
    world = World(*faults(FORBIDDEN))
    with pytest.raises(Refused, match=r"No\."):
        list(world.run(Ending(world.conditions(), running(world, id=STREAM))))


def test_who_gave_up_goes_on_with_it() -> None:
    world = World(*faults(*[LOST] * 20))
    world.passage.heard = True
    ending = Ending(world.conditions(retry_s=10), running(world, id=STREAM))
    with pytest.raises(GaveUp):
        list(world.run(ending))
    world.faults = iter(())
    list(world.run(ending))
    assert ending.over


def test_an_ended_credential_is_asked_for_anew() -> None:
    ended = json.dumps({"type": "urn:sluice:problem:credential-ended"}).encode()
    world = World(*faults(Reply(401, PROBLEM, ended)))
    list(world.run(Ending(world.conditions(renewable=True), running(world, id=STREAM))))
    assert [ask.renews for ask in world.asked] == [False, True]
