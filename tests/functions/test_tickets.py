"""Tickets: for who cannot send a header, and for nobody else's eyes."""

import time

import pytest

from shared.identity import tickets
from tests.functions.conftest import ASYNC, Sluice, by, client, start_body
from tests.functions.test_stream import events, text_of


async def started(sluice: Sluice, key: str = "demo") -> tuple[str, str]:
    """A stream that is over, and a ticket for it."""
    body = start_body("demo?tokens=20&rate=0")
    answer = await sluice.stream.post("/v1/streams", json=body, headers=by(key))
    stream = answer.headers["stream-id"]
    made = await sluice.api.post(f"/v1/streams/{stream}/ticket", headers=by(key))
    assert made.status_code == 201
    return stream, made.json()["ticket"]


async def test_whoever_has_a_ticket_follows_and_polls_its_stream(sluice: Sluice) -> None:
    stream, ticket = await started(sluice)
    path = f"/v1/streams/{stream}"
    whole = await sluice.stream.get(f"{path}/events")
    async with client(sluice.stream_app, "") as streaming, client(sluice.api_app, "") as answering:
        followed = await streaming.get(f"{path}/events", params={"ticket": ticket})
        resumed = await streaming.get(f"{path}/events", params={"after": 1, "ticket": ticket})
        again = await streaming.get(
            f"{path}/events", params={"ticket": ticket}, headers={"last-event-id": "1"}
        )
        polled = await answering.get(f"{path}/chunks", params={"ticket": ticket, "limit": 5})
        summary = await answering.get(path, params={"ticket": ticket})
    assert followed.content == whole.content
    assert events(resumed.text) == events(again.text) == events(whole.text)[2:]
    assert "".join(c["text"] for c in polled.json()["chunks"]) == text_of(whole.text)
    assert summary.json()["status"] == "completed"


async def test_a_start_that_nobody_waits_for_comes_with_a_ticket(sluice: Sluice) -> None:
    accepted = await sluice.api.post(
        "/v1/streams", json=start_body("demo?tokens=20&rate=0"), headers=ASYNC
    )
    made = accepted.json()
    lasts_s = made["ticket_expires_at"] - time.time()
    assert 590 < lasts_s <= 600
    async with client(sluice.stream_app, "") as anyone:
        followed = await anyone.get(made["events_url"], params={"ticket": made["ticket"]})
    assert events(followed.text)[-1][2]["status"] == "completed"


@pytest.mark.parametrize("path", ["/cancel", "/grant"])
async def test_a_ticket_steers_nothing(sluice: Sluice, path: str) -> None:
    stream, ticket = await started(sluice)
    before = dict(sluice.store.items)
    async with client(sluice.api_app, "") as anyone:
        answer = await anyone.post(f"/v1/streams/{stream}{path}", params={"ticket": ticket})
        erased = await anyone.delete(f"/v1/streams/{stream}", params={"ticket": ticket})
    assert answer.status_code == erased.status_code == 403
    assert answer.json()["scope"] == "stream"
    changed = {name for name in sluice.store.items if sluice.store.items[name] != before.get(name)}
    assert {table for table, _, _ in changed} <= {"audit", "tenants"}  # that it was refused


async def test_a_ticket_shows_what_was_said_and_not_who_asked_what(sluice: Sluice) -> None:
    stream, ticket = await started(sluice)
    async with client(sluice.stream_app, "") as anyone:
        answer = await anyone.get(f"/v1/streams/{stream}/export", params={"ticket": ticket})
    assert answer.status_code == 403
    assert (await sluice.stream.get(f"/v1/streams/{stream}/export")).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/v1/streams", "/v1/usage", "/v1/audit", "/v1/erasures/x"],
)
async def test_a_ticket_opens_nothing_but_its_stream(sluice: Sluice, path: str) -> None:
    _, ticket = await started(sluice)
    other, _ = await started(sluice)
    async with client(sluice.api_app, "") as anyone:
        assert (await anyone.get(path, params={"ticket": ticket})).status_code == 403
        foreign = await anyone.get(f"/v1/streams/{other}", params={"ticket": ticket})
    assert foreign.status_code == 404


async def test_a_ticket_for_a_ticket_lasts_no_longer_than_that(sluice: Sluice) -> None:
    stream, ticket = await started(sluice)
    path = f"/v1/streams/{stream}/ticket"
    sluice.clock.wall_s += 300
    async with client(sluice.api_app, "") as anyone:
        made = await anyone.post(path, params={"ticket": ticket})
        assert made.status_code == 201
        sluice.clock.wall_s += 301
        late = await anyone.get(f"/v1/streams/{stream}", params={"ticket": made.json()["ticket"]})
    assert late.status_code == 401


async def test_a_ticket_lasts_no_longer_than_the_key_that_it_was_made_by(sluice: Sluice) -> None:
    expires_at = int(sluice.clock.now()) + 60
    await sluice.add_key("soon", valid_until=expires_at)
    stream, _ = await started(sluice, "soon")
    made = (await sluice.api.post(f"/v1/streams/{stream}/ticket", headers=by("soon"))).json()
    assert made["ticket_expires_at"] == expires_at


async def test_a_ticket_ends_with_the_key_that_it_was_made_by(sluice: Sluice) -> None:
    key_id = await sluice.add_key("hers")
    stream, ticket = await started(sluice, "hers")
    await sluice.administration.revoke_key("demo", key_id)
    sluice.forget()
    async with client(sluice.api_app, "") as anyone:
        answer = await anyone.get(f"/v1/streams/{stream}", params={"ticket": ticket})
    assert (answer.status_code, answer.json()["reason"]) == (401, "revoked")


async def test_a_ticket_of_an_administrator_is_good_for_a_users_stream(sluice: Sluice) -> None:
    await sluice.add_key("ada's", user="ada", scopes=frozenset({"stream", "read"}))
    await sluice.add_key("root's", user="root")
    stream, _ = await started(sluice, "ada's")
    made = await sluice.api.post(f"/v1/streams/{stream}/ticket", headers=by("root's"))
    async with client(sluice.stream_app, "") as anyone:
        answer = await anyone.get(
            f"/v1/streams/{stream}/events", params={"ticket": made.json()["ticket"]}
        )
    assert events(answer.text)[-1][1] == "closed"


async def test_a_ticket_for_a_stream_that_is_not_there_is_not_made(sluice: Sluice) -> None:
    unknown = sluice.services.log.new_key("demo", bytes(5), 30).stream
    assert (await sluice.api.post(f"/v1/streams/{unknown}/ticket")).status_code == 404


@pytest.mark.parametrize("name", ["ticket", "%74icket", "ticke%74"])
async def test_a_ticket_is_seen_by_no_endpoint_and_by_no_log(
    sluice: Sluice, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    stream, ticket = await started(sluice)
    caplog.clear()
    path = f"/v1/streams/{stream}/events?{name}={ticket}"
    async with client(sluice.stream_app, "") as anyone:
        followed = await anyone.get(path)
        # An endpoint names what it does not know in its query, and was not given the ticket.
        refused = await anyone.get(f"{path}&nonsense=1")
    assert followed.status_code == 200
    assert (refused.status_code, refused.json()["field"]) == (400, "nonsense")
    for answer in (followed, refused):
        assert ticket not in answer.text + str(answer.headers)
    told = [record for record in caplog.records if record.name == "sluice"]
    assert len(told) == 2
    assert tickets.PREFIX not in "".join(str(record.__dict__) for record in told)
