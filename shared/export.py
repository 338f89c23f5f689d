"""Export: everything that is held about a stream, or about a user, as one JSON document.

    {"exported_at", "tenant", "user", "streams": [{"summary", "records": […], "audit": […]}, …],
     "keys": […], "audit": […]}

The last two are there for a user only: the API keys bound to them, and what the tenant's own chain
of the audit and those of refusals say of them. A stream that is erased while it is written ends
with `"erased": true`, behind what was read of it before.

A document is written page by page, so that a user of years fits through a function of 256 MB. Its
last byte is written last of all: one that broke off is no JSON.
"""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import asdict
from typing import Any

from shared.audit import TENANT_CHAIN, Chain, Entry
from shared.audit.refusals import REFUSALS_CHAIN
from shared.audit.trail import MOMENT_MAX, Audit
from shared.errors import NotFound
from shared.identity.keys import Keys
from shared.log import Log
from shared.records import Record, StreamKey, dump

PAGE = 100


async def stream_document(log: Log, audit: Audit, key: StreamKey) -> AsyncGenerator[bytes, None]:
    """The document of a stream; without it, where it is not there any more."""
    yield _head(log, key.tenant, None)
    async for piece in _stream(log, audit, key, b""):
        yield piece
    yield b"]}"


async def user_document(
    log: Log, audit: Audit, keys: Keys, tenant: str, user: str
) -> AsyncGenerator[bytes, None]:
    """The document of all streams of a user, the newest first."""
    yield _head(log, tenant, user)
    comma, before, more = b"", None, True
    while more:
        found, more = await log.summaries(tenant, user, before=before, limit=PAGE)
        for summary in found:
            before = summary.stream
            async for piece in _stream(log, audit, StreamKey(tenant, summary.stream), comma):
                yield piece
                comma = b","
    theirs = [bound.to_item() for bound in await keys.of(tenant) if bound.user == user]
    yield b'],"keys":' + dump(theirs).encode() + b',"audit":['
    comma = b""
    for chain in (TENANT_CHAIN, REFUSALS_CHAIN):
        async for entries in _audit(audit, Chain(tenant, chain)):
            said = [e for e in entries if user in (e.actor.user, e.details.get("user"))]
            if said:
                yield comma + _joined(entry.to_document() for entry in said)
                comma = b","
    yield b"]}"


async def _stream(
    log: Log, audit: Audit, key: StreamKey, comma: bytes
) -> AsyncGenerator[bytes, None]:
    """One stream of a document, behind a comma; nothing where it is gone since it was listed."""
    try:
        summary = await log.summary(key)
        page = await log.read(key, consistent=True)
    except NotFound:
        return
    yield comma + dump({"summary": asdict(summary)}).encode()[:-1] + b',"records":['
    erased = False
    while page.records and not erased:
        yield _joined(map(_record, page.records))
        try:
            page = await log.read(key, page.records[-1].seq, consistent=True)
        except NotFound:
            erased = True
        else:
            yield b"," if page.records else b""
    yield b'],"audit":['
    comma = b""
    async for entries in _audit(audit, Chain.of(key)):
        yield comma + _joined(entry.to_document() for entry in entries)
        comma = b","
    yield b'],"erased":true}' if erased else b"]}"


async def _audit(audit: Audit, chain: Chain) -> AsyncGenerator[tuple[Entry, ...], None]:
    """All entries of a chain, a page at a time."""
    after = None
    while True:
        page = await audit.page(
            chain.tenant, start_ms=0, end_ms=MOMENT_MAX, chain=chain.name, after=after, limit=PAGE
        )
        if page.entries:
            yield page.entries
        if (after := page.next) is None:
            return


def _head(log: Log, tenant: str, user: str | None) -> bytes:
    head = dump({"exported_at": log.now_ms(), "tenant": tenant, "user": user})
    return f'{head[:-1]},"streams":['.encode()


def _joined(documents: Iterable[dict[str, Any]]) -> bytes:
    return ",".join(map(dump, documents)).encode()


def _record(record: Record) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "kind": record.kind,
        "epoch": record.epoch,
        "at": record.at,
        "text": record.text,
        "body": dict(record.body),
    }
