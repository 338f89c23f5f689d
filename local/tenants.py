"""`sluice tenant`: who may use Sluice, how much, and what is done for them."""

import asyncio
import json
import sys
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any

from local.document import assign, changes, flat, shown
from local.errors import Failed
from local.keys import is_good
from local.lookup import each, known, state
from local.moments import shown as moment
from local.terminal import Cell, Progress, counted, note, show_json, show_table
from local.usage import Used, used_by
from local.where import Place, run
from shared.administration import Administration
from shared.identity.keys import Keys
from shared.tenants import Policy, Tenant

#: A document is far smaller.
DOCUMENT_CHARS_MAX = 256 * 1024


def add(options: Namespace) -> int:
    given = _read(options.file) if options.file else {}

    async def work(place: Place) -> int:
        # Complete, so that whatever can be set can be assigned to.
        document = Policy.from_document(given).to_document()
        assign(document, options.assignments)
        tenant = await Administration(place.store).add_tenant(options.tenant, document)
        changed = changes(Policy().to_document(), tenant.policy.to_document())
        if options.json:
            show_json(encode(tenant))
            return 0
        but = " but for:" if changed else "."
        print(f"The tenant {tenant.name} is made, with the defaults{but}")
        _show_changes(changed, ("default", "here"))
        note(f"`sluice key add {tenant.name}` makes a key for it.")
        return 0

    return run(options, work, make=True)


def change(options: Namespace) -> int:
    if not options.assignments and not options.file:
        options.parser.error("say what to set: NAME=VALUE, or --file")
    given = _read(options.file) if options.file else None

    async def work(place: Place) -> int:
        await known(place, options.tenant)
        before: dict[str, Any] = {}

        def edit(current: dict[str, Any]) -> None:
            before.update(deepcopy(current))
            if given is not None:
                current.update(Policy.from_document(given).to_document())
            assign(current, options.assignments)

        tenant = await Administration(place.store).set_policy(options.tenant, edit)
        changed = changes(before, tenant.policy.to_document())
        if options.json:
            told = {name: {"before": old, "after": new} for name, (old, new) in changed.items()}
            show_json({"changed": told, **encode(tenant)})
        elif not changed:
            print(f"Nothing changes: the tenant {tenant.name} has these settings already.")
        else:
            _show_changes(changed, ("before", "after"))
            note("Everywhere within 30 s.")
        return 0

    return run(options, work)


def show(options: Namespace) -> int:
    async def work(place: Place) -> int:
        tenant = await known(place, options.tenant)
        if options.json:
            show_json(encode(tenant))
            return 0
        print(f"{tenant.name}: {state(tenant)}, made {moment(tenant.created_at)}\n")
        default = dict(_shortly(Policy()))
        show_table(
            ("setting", "value", "default"),
            [
                (name, value, default.get(name, "none") if value != default.get(name) else "")
                for name, value in _shortly(tenant.policy)
            ],
        )
        return 0

    return run(options, work)


def listed(options: Namespace) -> int:
    async def work(place: Place) -> int:
        async def look(tenant: Tenant) -> tuple[Used, int]:
            keys = await Keys(place.store).of(tenant.name)
            return await used_by(place, tenant), sum(is_good(key) for key in keys)

        found: list[tuple[Used, int]] = []
        with Progress() as progress:
            async for row in each(place, look):
                found.append(row)
                progress(counted(len(found), "tenant"))
        if options.json:
            show_json({"tenants": [{**used.encode(), "keys": keys} for used, keys in found]})
        elif found:
            show_table(
                ("tenant", "state", "made", "keys", "streams now", "tokens today", "this month"),
                [_row(used, keys) for used, keys in found],
            )
        else:
            print("There is no tenant yet: `sluice tenant add NAME` makes one.")
        return 0

    return run(options, work)


def suspend(options: Namespace) -> int:
    async def work(place: Place) -> int:
        tenant = await known(place, options.tenant)
        wanted = not options.resume
        if tenant.suspended is wanted:
            print(f"The tenant {tenant.name} is {state(tenant)} already.")
            return 0
        tenant = await Administration(place.store).suspend(tenant.name, suspended=wanted)
        print(f"The tenant {tenant.name} is {state(tenant)}: everywhere within 30 s.")
        return 0

    return run(options, work)


def remove(options: Namespace) -> int:
    async def exists(place: Place) -> int:
        await known(place, options.tenant)
        return 0

    if not options.yes:
        # Apart from the work: an event loop would keep Ctrl-C from who is asked.
        run(options, exists)
        _ask(options.tenant)
    return run(options, lambda place: _remove(place, options.tenant))


async def _remove(place: Place, name: str) -> int:
    tenant = await known(place, name)
    streams = keys = 0
    removal = Administration(place.store).remove_tenant(
        name, settle_s=place.settle_s, lag_s=place.lag_s
    )
    try:
        with Progress() as progress:
            progress("Suspending it, and looking for its streams.")
            async for done in removal:
                streams, keys = done.streams, done.keys
                late = f"; {done.wait_s:.0f} s until a last look for late ones" * bool(done.wait_s)
                progress(f"{_gone(streams, keys)} so far{late}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("It is half done. The same command again goes on.")
        raise
    print(f"The tenant {name} is gone, with {_gone(streams, keys)}.")
    days = tenant.policy.audit_retention_days
    note(f"Its audit stays, each entry for {days} days: `sluice audit show {name}`.")
    return 0


def encode(tenant: Tenant) -> dict[str, Any]:
    """A tenant as JSON shows it; times are in ms since 1970."""
    return {
        "tenant": tenant.name,
        "state": state(tenant),
        "created_at": tenant.created_at,
        "rev": tenant.rev,
        "settings": tenant.policy.to_document(),
    }


def _row(used: Used, keys: int) -> tuple[Cell, ...]:
    tenant = used.tenant
    about = (tenant.name, state(tenant), moment(tenant.created_at), keys)
    return (*about, used.active, used.today, used.month)


def _gone(streams: int, keys: int) -> str:
    return f"{counted(streams, 'stream')} and {counted(keys, 'key')}"


def _shortly(policy: Policy) -> list[tuple[str, str]]:
    """The settings for people: limits of which none is set are one line."""
    document = policy.to_document()
    for name in ("user_limits", "address_limits"):
        if not any(bound not in (None, []) for bound in document[name].values()):
            document[name] = None
    return [(name, shown(value)) for name, value in flat(document)]


def _show_changes(changed: dict[str, tuple[Any, Any]], titles: tuple[str, str]) -> None:
    if changed:
        rows = [(name, shown(old), shown(new)) for name, (old, new) in changed.items()]
        show_table(("setting", *titles), rows)


def _ask(name: str) -> None:
    if not sys.stdin.isatty():
        raise Failed("nobody can be asked here: --yes removes without asking")
    note(f"This erases all streams of {name}, its keys and its settings.")
    print("Type its name to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != name:
        raise Failed("that is not its name; nothing was done")


def _read(file: str) -> dict[str, Any]:
    """The document in a file, or in standard input where it is `-`."""
    try:
        if file == "-":
            text = sys.stdin.read(DOCUMENT_CHARS_MAX)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(DOCUMENT_CHARS_MAX)
        document = json.loads(text)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Failed(f"{file} is not JSON in UTF-8: {error}") from error
    if not isinstance(document, dict):
        raise Failed(f"{file} is not a JSON object")
    return document
