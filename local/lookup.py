"""Finds tenants: one by its name, or all of them."""

import difflib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from local.errors import Failed
from local.several import several
from local.where import Place
from shared.administration import Administration
from shared.errors import NotFound
from shared.tenants import Tenant, Tenants

Found = TypeVar("Found")


async def known(place: Place, name: str) -> Tenant:
    """A tenant. Raises `Failed`, which suggests the nearest name."""
    try:
        return await Administration(place.store).tenant(name)
    except NotFound:
        near = difflib.get_close_matches(name, await Tenants(place.store).names(), 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise Failed(f"there is no tenant {name}{meant}") from None


async def each(place: Place, read: Callable[[Tenant], Awaitable[Found]]) -> AsyncIterator[Found]:
    """What `read` finds for each tenant, by name."""
    tenants = Tenants(place.store)

    async def names() -> AsyncIterator[str]:
        for name in await tenants.names():
            yield name

    async def find(name: str) -> Found | None:
        tenant = await tenants.get(name)
        return await read(tenant) if tenant else None

    async for found in several(names(), find):
        if found is not None:  # else it was removed since it was listed
            yield found


def state(tenant: Tenant) -> str:
    return "suspended" if tenant.suspended else "active"
