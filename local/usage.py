"""`sluice usage`: what tenants have used, and what is left of their limits."""

from argparse import Namespace
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from local.lookup import each, known, state
from local.moments import span
from local.terminal import Cell, Progress, bar, counted, show_json, show_table
from local.where import Place, run
from shared.dialects.native import encode_usage
from shared.limits import COUNT_MAX
from shared.quotas import Left, Quotas
from shared.tenants import Tenant


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant has used: `active` streams now, and tokens by day and month (of UTC)."""

    tenant: Tenant
    active: int
    left: list[Left]
    tokens: dict[str, int]

    @property
    def today(self) -> int:
        return self.tokens.get(f"{datetime.now(UTC):%Y-%m-%d}", 0)

    @property
    def month(self) -> int:
        return self.tokens.get(f"{datetime.now(UTC):%Y-%m}", 0)

    def encode(self) -> dict[str, Any]:
        """As JSON shows it: limits and tokens as `GET /v1/usage` has them."""
        return {
            "tenant": self.tenant.name,
            "state": state(self.tenant),
            "created_at": self.tenant.created_at,
            "streams_now": self.active,
            **encode_usage(self.left, self.tokens),
        }


async def used_by(place: Place, tenant: Tenant) -> Used:
    quotas = Quotas(place.store)
    # Also where they are not limited they are counted: ask as if the limit were never reached.
    limits = replace(tenant.policy.limits, streams_at_once=COUNT_MAX)
    counted = replace(tenant, policy=replace(tenant.policy, limits=limits))
    [at_once] = [
        left
        for left in await quotas.used(counted, None, None)
        if left.unit == "concurrent-requests"
    ]
    return Used(
        tenant,
        active=COUNT_MAX - at_once.left,
        left=await quotas.used(tenant, None, None),
        tokens=await quotas.history(tenant),
    )


def usage(options: Namespace) -> int:
    work = _one if options.tenant else _all
    return run(options, lambda place: work(place, options))


async def _one(place: Place, options: Namespace) -> int:
    used = await used_by(place, await known(place, options.tenant))
    if options.json:
        show_json(used.encode())
        return 0
    print(f"{used.tenant.name}: {state(used.tenant)}, {counted(used.active, 'stream')} now\n")
    columns = ("limit", "used", "left", "of", "full again")
    show_table(columns, [_limit(left) for left in used.left])
    print()
    show_table(("UTC", "tokens"), list(used.tokens.items()) or [("so far", 0)])
    return 0


async def _all(place: Place, options: Namespace) -> int:
    found: list[Used] = []
    with Progress() as progress:
        async for used in each(place, lambda tenant: used_by(place, tenant)):
            found.append(used)
            progress(counted(len(found), "tenant"))
    if options.json:
        show_json({"tenants": [used.encode() for used in found]})
        return 0
    columns = ("tenant", "streams now", "of", "tokens today", "of", "this month", "of")
    show_table(columns, [_row(used) for used in found])
    return 0


def _row(used: Used) -> tuple[Cell, ...]:
    limits = used.tenant.policy.limits
    return (
        used.tenant.name,
        *(used.active, limits.streams_at_once),
        *(used.today, limits.tokens_per_day),
        *(used.month, limits.tokens_per_month),
    )


def _limit(left: Left) -> tuple[Cell, ...]:
    """A limit, by the setting that makes it."""
    setting = f"limits.{left.policy.removeprefix('tenant-').replace('-', '_')}"
    again = f"in {span(left.reset_s)}" if left.reset_s else ""
    return (setting, bar(left.limit - left.left, left.limit), left.left, left.limit, again)
