"""What is believed of an edge, and what of anyone else."""

import hashlib
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from shared.middleware.edge import Edge

SECRET = "only the edge knows it"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
EDGE_ADDRESS = ("198.51.100.9", 443)


async def seen(digest: str, **headers: str) -> dict[str, Any]:
    """What the app behind the edge gets to see of a request: its client's address and headers."""
    seen: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen["address"] = scope["client"][0]
        seen["headers"] = {name.decode(): value.decode() for name, value in scope["headers"]}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": EDGE_ADDRESS, "headers": raw}
    await Edge(app, digest)(scope, _never, _never)
    return seen


async def _never(*_: object) -> Any:
    raise AssertionError


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::7"])
async def test_the_viewer_s_address_comes_from_our_edge(address: str) -> None:
    found = await seen(DIGEST, sluice_edge=SECRET, sluice_viewer=address, accept="*/*")
    assert found == {"address": address, "headers": {"accept": "*/*"}}


async def test_the_viewer_s_credential_stands_where_the_edge_has_signed() -> None:
    found = await seen(
        DIGEST,
        authorization="AWS4-HMAC-SHA256 Credential=x",
        sluice_edge=SECRET,
        sluice_authorization="Bearer key",
    )
    assert found["headers"] == {"authorization": "Bearer key"}


async def test_without_a_credential_nothing_takes_its_place() -> None:
    found = await seen(DIGEST, authorization="Bearer key", sluice_edge=SECRET)
    assert found["headers"] == {"authorization": "Bearer key"}
    assert found["address"] == EDGE_ADDRESS[0]


@pytest.mark.parametrize(
    ("digest", "secret"),
    [(DIGEST, {}), (DIGEST, {"sluice_edge": "a guess"}), ("", {"sluice_edge": SECRET})],
    ids=["no secret", "a wrong one", "no edge"],
)
async def test_from_anyone_else_such_headers_mean_nothing(
    digest: str, secret: dict[str, str]
) -> None:
    told = {"sluice_viewer": "203.0.113.7", "sluice_authorization": "Bearer stolen"}
    found = await seen(digest, authorization="Bearer key", **told, **secret)
    assert found == {"address": EDGE_ADDRESS[0], "headers": {"authorization": "Bearer key"}}


@pytest.mark.parametrize("said", ["", "203.0.113.7:443", "unknown", "ünknown"])
async def test_what_is_no_address_is_not_taken_for_one(said: str) -> None:
    found = await seen(DIGEST, sluice_edge=SECRET, sluice_viewer=said)
    assert found["address"] == EDGE_ADDRESS[0]
