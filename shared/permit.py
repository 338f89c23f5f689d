"""A permit: whether a running stream may go on, by whoever started it or has granted it since."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from shared import authority
from shared.authority import Authority
from shared.errors import Unavailable

#: How long before its credential expires a stream's clients are told.
NOTICE_S = 30.0
#: For how long what was known counts while the store does not answer: with the 20 s for which it
#: was known already, that is the 30 s within which a revocation takes effect.
STALE_S = 10.0


class Permit:
    """The permit of one stream; `body` is that of the record that gives it."""

    def __init__(self, authority: Authority, tenant: str, body: Mapping[str, Any]) -> None:
        self._authority = authority
        self._tenant = tenant
        # Never: a record may be old, and who begins to produce may know nothing yet.
        self._asked_at = -math.inf
        self.renew(body)

    @property
    def expires_at(self) -> int | None:
        """When the credential expires, in s since 1970."""
        return self._identity.expires_at

    def renew(self, body: Mapping[str, Any]) -> None:
        """Go on by another credential."""
        self._identity = authority.from_body(self._tenant, body)
        self._known: str | None = None
        self._noticed = False

    async def ended(self) -> str | None:
        """Why the stream may not go on; None where it may. Raises `Unavailable`."""
        now = asyncio.get_running_loop().time()
        try:
            self._known = await self._authority.ended(self._identity)
        except Unavailable:
            if now - self._asked_at > STALE_S:
                raise
            return "expired" if self._authority.expires_within(self._identity, 0) else self._known
        self._asked_at = now
        return self._known

    def notice_due(self) -> bool:
        """Whether its clients are to be told that it expires soon: once for each credential."""
        soon = self._authority.expires_within(self._identity, NOTICE_S)
        due, self._noticed = soon and not self._noticed, soon
        return due
