"""The edge in front of us: what it says of a viewer is believed where it proves to be ours."""

import hashlib
import hmac
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

#: What only the edge and nobody else knows.
SECRET = b"sluice-edge"
#: Where the viewer is: the connection that reaches us is the edge's own.
VIEWER = b"sluice-viewer"
#: The viewer's `Authorization`, in whose place a signature of the edge may stand.
AUTHORIZATION = b"sluice-authorization"
TOLD = frozenset({SECRET, VIEWER, AUTHORIZATION})


class Edge:
    """Has a request that came by our edge look as if the viewer had asked us directly.

    `digest` is the SHA-256 of the edge's secret, in hex; where it is empty there is no edge. A
    function URL can be reached past the edge, and there anyone may send such headers: without the
    secret they are dropped.
    """

    def __init__(self, app: ASGIApp, digest: str) -> None:
        self._app = app
        self._digest = digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            told = {name: value for name, value in scope["headers"] if name in TOLD}
            headers = [header for header in scope["headers"] if header[0] not in TOLD]
            scope = {**scope, "headers": headers}
            if self._is_ours(told):
                _believe(scope, told)
        await self._app(scope, receive, send)

    def _is_ours(self, told: dict[bytes, bytes]) -> bool:
        if not self._digest or SECRET not in told:
            return False
        digest = hashlib.sha256(told[SECRET]).hexdigest()
        return hmac.compare_digest(digest, self._digest)


def _believe(scope: Scope, told: dict[bytes, bytes]) -> None:
    if _is_address(told.get(VIEWER, b"")):
        scope["client"] = (told[VIEWER].decode(), 0)
    if AUTHORIZATION in told:
        others = [header for header in scope["headers"] if header[0] != b"authorization"]
        scope["headers"] = [*others, (b"authorization", told[AUTHORIZATION])]


def _is_address(text: bytes) -> bool:
    try:
        ip_address(text.decode("latin-1"))
    except ValueError:
        return False
    return True
