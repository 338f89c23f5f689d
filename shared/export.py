"""Export: everything that is held about a stream, or about a user, as one JSON document.

    {"exported_at", "tenant", "user", "streams": [{"summary", "records": […], "audit": […]}, …]}

It is written piece by piece, so that a user of years fits through a function of 256 MB.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from shared.audit import Chain
from shared.audit.trail import Audit
from shared.errors import NotFound
from shared.log import Log
from shared.records import Record, StreamKey, dump

PAGE = 100


async def export_stream(log: Log, audit: Audit, key: StreamKey) -> dict[str, Any]:
    """All of one stream. Raises `NotFound`, `Unavailable`."""
    entries, _ = await audit.read(Chain.of(key))
    return {
        "summary": asdict(await log.summary(key)),
        "records": [_record(record) for record in await log.all_records(key)],
        "audit": [entry.to_document() for entry in entries],
    }


async def documents(
    log: Log, audit: Audit, tenant: str, *, user: str | None, keys: Sequence[StreamKey] = ()
) -> AsyncIterator[bytes]:
    """The document of these streams, or of all of a user's, in pieces."""
    head = dump({"exported_at": log.now_ms(), "tenant": tenant, "user": user})
    yield f'{head[:-1]},"streams":['.encode()
    comma = b""
    async for key in _keys(log, tenant, user, keys):
        try:
            exported = await export_stream(log, audit, key)
        except NotFound:
            continue  # erased, or expired, since it was listed
        yield comma + dump(exported).encode()
        comma = b","
    yield b"]}"


async def _keys(
    log: Log, tenant: str, user: str | None, keys: Sequence[StreamKey]
) -> AsyncIterator[StreamKey]:
    for key in keys:
        yield key
    before, more = None, user is not None and not keys
    while more:
        found, more = await log.summaries(tenant, user, before=before, limit=PAGE)
        for summary in found:
            before = summary.stream
            yield StreamKey(tenant, summary.stream)


def _record(record: Record) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "kind": record.kind,
        "epoch": record.epoch,
        "at": record.at,
        "text": record.text,
        "body": dict(record.body),
    }
