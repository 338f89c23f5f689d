"""`sluice audit show` and `export`: what a tenant's audit says, and a copy that stands alone."""

import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from local.errors import Failed
from local.exported import Whole, Writer
from local.lookup import known
from local.moments import exact
from local.moments import shown as moment
from local.several import several
from local.terminal import Cell, Progress, counted, note, show_json, show_table
from local.where import Place, run
from shared.audit import TENANT_CHAIN, Chain, Entry
from shared.audit.trail import KEPT_DAYS_MAX, Audit
from shared.errors import NotFound
from shared.log import Log
from shared.records import DAY_S, StreamKey, is_stream_id
from shared.tenants import Tenants, is_tenant

_DAY_MS = DAY_S * 1000


def show(options: Namespace) -> int:
    async def work(place: Place) -> int:
        await exists(place, options.tenant)
        entries, later = await _some(place, options)
        if options.json:
            documents = [entry.to_document() for entry in entries]
            show_json({"entries": documents, "next_since": later})
            return 0
        if not entries:
            print("There is no entry in this time.")
            return 0
        columns = ("time", "chain", "n", "event", "outcome", "who", "details")
        show_table(columns, [_row(entry) for entry in entries])
        if later is not None:
            note(f"More: --since {exact(later)}, or a higher --limit.")
        return 0

    return run(options, work)


def export(options: Namespace) -> int:
    async def work(place: Place) -> int:
        await exists(place, options.tenant)
        with _output(options.output) as file, Progress() as progress:
            writer = Writer(file, options.tenant, exported_at=_now_ms(), since=options.since)
            async for whole in read(place, options.tenant, options.since):
                writer.add(whole)
                progress(str(writer))
            writer.end()
        note(f"{writer}.")
        return 0

    return run(options, work)


async def exists(place: Place, tenant: str) -> None:
    """Raises `Failed` for a tenant that neither is nor was."""
    if not is_tenant(tenant) or not await Audit(place.store).head(Chain(tenant, TENANT_CHAIN)):
        # Its audit outlives a tenant. Of one that is there it may have been removed.
        await known(place, tenant)


async def read(
    place: Place, tenant: str, since_ms: int | None, stream: str | None = None
) -> AsyncIterator[Whole]:
    """Every chain of a tenant, whole, that has an entry since then; or that of a stream.

    One of which nothing is left is told where that cannot be: it has not expired.
    """
    audit, now = Audit(place.store), time.time()

    async def whole(chain: Chain) -> Whole | None:
        entries, head = await audit.read(chain)
        found = Whole(chain, entries, head, _now_ms())
        return found if entries or head or await _is_due(place, chain, now) else None

    chains = _chains(place, tenant, since_ms) if stream is None else _family(audit, tenant, stream)
    async for found in several(chains, whole):
        if found:
            yield found


async def _chains(place: Place, tenant: str, since_ms: int | None) -> AsyncIterator[Chain]:
    """The chains that are found by entries or heads, and those that should be there."""
    audit, log = Audit(place.store), Log(place.store)
    start_ms = await _beginning(audit, tenant) if since_ms is None else since_ms
    seen: set[str] = set()
    if since_ms is None:
        seen.add(TENANT_CHAIN)
        yield Chain(tenant, TENANT_CHAIN)
    async for chain in audit.chains(tenant, start_ms=start_ms, end_ms=_now_ms() + _DAY_MS):
        if chain.name not in seen:
            seen.add(chain.name)
            yield chain
    before, more = None, True
    while more:
        found, more = await log.summaries(tenant, before=before, limit=100, everything=True)
        for summary in found:
            before, more = summary.stream, more and summary.created_at >= start_ms
            if summary.created_at >= start_ms and summary.stream not in seen:
                yield Chain(tenant, summary.stream)


async def _is_due(place: Place, chain: Chain, now: float) -> bool:
    """Whether a chain of which nothing is left should be there: it has not expired."""
    if chain.name == TENANT_CHAIN:
        tenant = await Tenants(place.store).get(chain.tenant)
        kept_s = tenant.policy.audit_retention_days * DAY_S if tenant else 0
        return tenant is not None and tenant.created_at / 1000 + kept_s > now
    if not is_stream_id(chain.name):
        return False
    try:
        # A stream and the first entry of its chain began together, and its first record tells.
        opened = (await Log(place.store).read(StreamKey(chain.tenant, chain.name), limit=1)).newest
    except NotFound:
        return False
    return opened is not None and int(opened.body["chain"]["expires_at"]) > now


async def _beginning(audit: Audit, tenant: str) -> int:
    """Since when a tenant can have entries: to look through all days would take long."""
    first = await audit.page(
        tenant, start_ms=0, end_ms=_now_ms() + _DAY_MS, chain=TENANT_CHAIN, limit=1
    )
    if first.entries and first.entries[0].n == 0:
        # Clocks differ.
        return max(first.entries[0].at - _DAY_MS, 0)
    return _now_ms() - KEPT_DAYS_MAX * _DAY_MS


async def _family(audit: Audit, tenant: str, stream: str) -> AsyncIterator[Chain]:
    for chain in await audit.family(Chain(tenant, stream)):
        yield chain


async def _some(place: Place, options: Namespace) -> tuple[list[Entry], int | None]:
    """The entries that are asked for, and where those begin that the limit leaves out."""
    audit = Audit(place.store)
    # Of one stream all there is; else the last day.
    start_ms = 0 if options.stream else _now_ms() - _DAY_MS
    end_ms = _now_ms() + _DAY_MS if options.until is None else options.until
    entries: list[Entry] = []
    after: str | None = None
    with Progress() as progress:
        while len(entries) <= options.limit:
            page = await audit.page(
                options.tenant,
                start_ms=start_ms if options.since is None else options.since,
                end_ms=end_ms,
                chain=options.stream,
                after=after,
                limit=options.limit + 1 - len(entries),
            )
            entries += page.entries
            progress(counted(len(entries), "entry", "entries"))
            if (after := page.next) is None:
                break
    if options.stream is None:
        # What happened in one ms comes in any order.
        entries.sort(key=lambda entry: (entry.at, entry.chain.name, entry.n))
    shown, rest = entries[: options.limit], entries[options.limit :]
    return shown, rest[0].at if rest else None


def _row(entry: Entry) -> tuple[Cell, ...]:
    actor = entry.actor
    who = " ".join(part for part in (actor.credential, actor.user, actor.address) if part)
    details = ", ".join(f"{name}={value}" for name, value in entry.details.items())
    at = moment(entry.at, seconds=True)
    return (at, entry.chain.name, entry.n, entry.event, entry.outcome, who, details)


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Where an export goes: what breaks off leaves no file of that name."""
    if path is None:
        yield sys.stdout
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _now_ms() -> int:
    return int(time.time() * 1000)
