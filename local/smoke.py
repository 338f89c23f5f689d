"""`sluice smoke`: whether a deployment does what it must, tried once after it was deployed."""

import asyncio
import hashlib
import secrets
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from local import where
from local.errors import Failed
from local.terminal import counted, note, show_json, show_table
from local.trials import ORIGIN, STARTS_A_MINUTE, TRIALS, Miss, NotTried, Site
from local.where import Place
from shared.administration import Administration
from shared.errors import NotFound, SluiceError
from shared.identity import SCOPES
from shared.identity.keys import Key, id_of

#: A comment line comes every 15 s at most: who hears nothing for longer is cut off.
TIMEOUT = httpx.Timeout(10.0, read=25.0)
#: What a smoke test's tenant keeps, and for how long, should its removal fail.
POLICY = {
    "origins": [ORIGIN],
    "limits": {"models": ["demo*"], "starts_per_minute": STARTS_A_MINUTE},
    "retention_days": 1,
    "audit_retention_days": 1,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial went: `ok`, `missed` or `not tried`, what was seen, and how long it took."""

    trial: str
    outcome: str
    seen: str
    seconds: float


def smoke(options: Namespace) -> int:
    """The command: exits with 1 where something was missed."""
    with _site(options) as site:
        note(f"Trying {options.url}")
        outcomes = [_tried(name, site) for name in TRIALS]
    if options.json:
        show_json([asdict(one) for one in outcomes])
    else:
        _show(outcomes)
    missed = sum(one.outcome == "missed" for one in outcomes)
    note(f"{counted(missed, 'thing')} missed." if missed else "Nothing was missed.")
    return 1 if missed else 0


def _tried(name: str, site: Site) -> Outcome:
    began, outcome = time.monotonic(), "ok"
    try:
        seen = TRIALS[name](site)
    except NotTried as why:
        outcome, seen = "not tried", str(why)
    except Miss as miss:
        outcome, seen = "missed", str(miss)
    except SluiceError as error:  # of the store, which a trial has used itself
        outcome, seen = "missed", where.said(error)
    except httpx.TransportError as error:
        outcome, seen = "missed", f"the connection failed: {type(error).__name__} {error}".strip()
    except (KeyError, ValueError, IndexError) as error:
        outcome, seen = "missed", f"the answer is not Sluice's: {type(error).__name__} {error}"
    took_s = time.monotonic() - began
    note(f"  {outcome:9}  {name}")
    return Outcome(name, outcome, seen, round(took_s, 2))


def _show(outcomes: Sequence[Outcome]) -> None:
    rows = [(one.trial, one.outcome, f"{one.seconds:.1f} s", one.seen) for one in outcomes]
    show_table(("trial", "outcome", "took", "seen"), rows)


@contextmanager
def _site(options: Namespace) -> Iterator[Site]:
    """Raises `Failed` where nothing can be tried there."""
    if options.key is not None:
        with _clients(options, options.key) as (stream, api):
            yield Site(stream, api, options.key)
        return
    with where.place(options, make=False) as place:
        name, key = f"smoke-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
        try:
            asyncio.run(_make(place, name, key))
            with _clients(options, key) as (stream, api):
                yield Site(stream, api, key, place, ORIGIN)
        except SluiceError as error:
            raise Failed(f"a tenant to try with cannot be made: {where.said(error)}") from error
        finally:
            asyncio.run(_remove(place, name))


@contextmanager
def _clients(options: Namespace, key: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    shared: dict[str, Any] = {
        "headers": {"authorization": f"Bearer {key}"},
        "timeout": TIMEOUT,
        "event_hooks": {"request": [_with_hash]},
    }
    with (
        httpx.Client(base_url=options.url, **shared) as stream,
        httpx.Client(base_url=options.api or options.url, **shared) as api,
    ):
        try:
            stream.get("/healthz")
        except httpx.TransportError as error:
            raise Failed(f"nothing answers at {options.url}") from error
        yield stream, api


def _with_hash(request: httpx.Request) -> None:
    """A closed edge signs no body that it has not read, but for its hash."""
    if request.method == "POST":
        request.headers["x-amz-content-sha256"] = hashlib.sha256(request.content).hexdigest()


async def _make(place: Place, name: str, key: str) -> None:
    administration = Administration(place.store)
    await administration.add_tenant(name, POLICY)
    await administration.add_key(key, Key(name, id_of(key), scopes=SCOPES))


async def _remove(place: Place, name: str) -> None:
    """The tenant goes, with all that the trials have left."""
    note("Removing what the trials have left.")
    try:
        removal = Administration(place.store).remove_tenant(
            name, settle_s=place.settle_s, lag_s=place.lag_s
        )
        async for _ in removal:
            pass
    except NotFound:
        pass
    except SluiceError as error:
        note(f"The tenant {name} is left: `sluice tenant remove {name}` ({where.said(error)}).")
