"""Users of one tenant: each sees the streams that are theirs, and who may see all sees all."""

import asyncio
from typing import Any

import pytest

from functions.sweep import sweep
from shared.erasure import INDEX_LAG_S
from shared.identity import READ, STREAM
from tests.functions.conftest import ASYNC, Sluice, by, running, start_body
from tests.functions.test_stream import events
from tests.simulation.clock import virtual

USER = frozenset({READ, STREAM})


@pytest.fixture
async def users(sluice: Sluice) -> Sluice:
    """Keys of two users, and of one that may see everything."""
    await sluice.add_key("ada's", user="ada", scopes=USER)
    await sluice.add_key("bob's", user="bob", scopes=USER)
    await sluice.add_key("root's", user="root")
    return sluice


async def begun_by(sluice: Sluice, key: str) -> str:
    answer = await sluice.stream.post(
        "/v1/streams", json=start_body("demo?tokens=3&rate=0"), headers=by(key)
    )
    return answer.headers["stream-id"]


async def listed(sluice: Sluice, key: str, **query: Any) -> list[str]:
    found: list[str] = []
    while True:
        page = await sluice.api.get("/v1/streams", params=query, headers=by(key))
        found += [entry["id"] for entry in page.json()["streams"]]
        if page.json()["next_page"] is None:
            return found
        query["page"] = page.json()["next_page"]


async def test_a_list_holds_ones_own(users: Sluice) -> None:
    hers, his, common = [await begun_by(users, key) for key in ("ada's", "bob's", "demo")]
    assert await listed(users, "ada's") == [hers]
    assert await listed(users, "bob's", limit=1) == [his]
    for everything in ("root's", "demo"):
        assert sorted(await listed(users, everything, limit=2)) == sorted([hers, his, common])


@pytest.mark.parametrize("key", ["bob's", "other"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/chunks"),
        ("POST", "/cancel"),
        ("POST", "/grant"),
        ("POST", "/ticket"),
        ("DELETE", ""),
    ],
)
async def test_a_stream_of_somebody_else_is_not_there(
    users: Sluice, method: str, path: str, key: str
) -> None:
    hers = await begun_by(users, "ada's")
    before = dict(users.store.items)
    asked = f"/v1/streams/{hers}{path}"
    assert (await users.api.request(method, asked, headers=by(key))).status_code == 404
    assert users.store.items == before
    assert (await users.api.request(method, asked, headers=by("ada's"))).is_success


@pytest.mark.parametrize("path", ["/events", "/export"])
async def test_nor_can_it_be_followed_or_exported(users: Sluice, path: str) -> None:
    hers = await begun_by(users, "ada's")
    asked = f"/v1/streams/{hers}{path}"
    assert (await users.stream.get(asked, headers=by("bob's"))).status_code == 404
    assert (await users.stream.get(asked, headers=by("ada's"))).status_code == 200
    assert (await users.stream.get(asked, headers=by("root's"))).status_code == 200


async def test_a_stream_of_the_tenant_itself_is_no_users(users: Sluice) -> None:
    common = await begun_by(users, "demo")
    asked = f"/v1/streams/{common}"
    assert (await users.api.get(asked, headers=by("ada's"))).status_code == 404


async def test_a_parent_of_somebody_else_is_not_there(users: Sluice) -> None:
    hers = await begun_by(users, "ada's")
    for client, headers in ((users.stream, {}), (users.api, ASYNC)):
        body = start_body(parent=hers)
        answer = await client.post("/v1/streams", json=body, headers=headers | by("bob's"))
        assert answer.status_code == 404
    assert (await users.api.get(f"/v1/streams/{hers}")).json()["status"] == "completed"


async def test_an_idempotency_key_is_each_users_own(users: Sluice) -> None:
    header = {"idempotency-key": "k"}
    hers, his = [
        await users.stream.post("/v1/streams", json=start_body(), headers=header | by(key))
        for key in ("ada's", "bob's")
    ]
    assert hers.status_code == his.status_code == 200
    assert hers.headers["stream-id"] != his.headers["stream-id"]


async def test_the_erasure_of_somebody_elses_stream_is_not_there(users: Sluice) -> None:
    """Else anyone who has its id could ask whether it was ever there."""
    hers = await begun_by(users, "ada's")
    await users.api.delete(f"/v1/streams/{hers}", headers=by("ada's"))
    asked = f"/v1/erasures/{hers}"
    assert (await users.api.get(asked, headers=by("ada's"))).json()["state"] == "done"
    assert (await users.api.get(asked, headers=by("root's"))).status_code == 200
    his = await users.api.get(asked, headers=by("bob's"))
    nobodys = await users.api.get("/v1/erasures/nothing", headers=by("bob's"))
    assert his.status_code == nobodys.status_code == 404
    assert his.content == nobodys.content


async def test_the_erasure_of_a_user_is_for_who_may_erase_users(users: Sluice) -> None:
    begun = await users.api.delete("/v1/users/ada/streams", headers=by("root's"))
    asked = begun.headers["location"]
    assert (await users.api.get(asked, headers=by("root's"))).status_code == 200
    assert (await users.api.get(asked, headers=by("bob's"))).status_code == 404


@virtual
async def test_a_user_that_is_erased_sees_nothing_any_more() -> None:
    async with running() as sluice:
        await sluice.add_key("ada's", user="ada", scopes=USER)
        hers, common = [await begun_by(sluice, key) for key in ("ada's", "demo")]
        begun = await sluice.api.delete("/v1/users/ada/streams")
        await asyncio.sleep(INDEX_LAG_S)
        newer = await begun_by(sluice, "ada's")
        await sweep(sluice.services, deadline=asyncio.get_running_loop().time() + 60)
        state = (await sluice.api.get(begun.headers["location"])).json()
        assert (state["state"], state["streams_erased"]) == ("done", 1)
        assert (await sluice.api.get(f"/v1/streams/{hers}")).status_code == 404
        # What begins later is not meant.
        assert await listed(sluice, "ada's") == [newer]
        assert sorted(await listed(sluice, "demo")) == sorted([common, newer])


async def test_what_is_kept_no_longer_is_not_there(sluice: Sluice) -> None:
    await sluice.policy(retention_days=1)
    stream = await begun_by(sluice, "demo")
    paths = ((sluice.api, ("", "/chunks")), (sluice.stream, ("/events", "/export")))
    sluice.clock.wall_s += 86_400 - 60
    for client, ends in paths:
        for end in ends:
            assert (await client.get(f"/v1/streams/{stream}{end}")).status_code == 200
    assert await listed(sluice, "demo") == [stream]
    sluice.clock.wall_s += 61
    for client, ends in paths:
        for end in ends:
            assert (await client.get(f"/v1/streams/{stream}{end}")).status_code == 404
    assert await listed(sluice, "demo") == []
    # The table has removed nothing yet.
    assert ("streams", f"demo#{stream}", 0) in sluice.store.items


async def test_how_long_a_stream_is_kept_is_settled_when_it_begins(sluice: Sluice) -> None:
    await sluice.policy(retention_days=2)
    stream = await begun_by(sluice, "demo")
    await sluice.policy(retention_days=1)
    sluice.clock.wall_s += 86_400 + 60
    answer = await sluice.stream.get(f"/v1/streams/{stream}/events")
    assert events(answer.text)[-1][1] == "closed"
