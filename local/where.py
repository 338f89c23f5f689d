"""Where an operator's command works: a deployed stack, the local run, or another DynamoDB."""

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from functions.wiring import dynamodb
from local import aws, database
from local.dynoxide import InUse, dynoxide
from local.errors import Failed
from local.options import DB
from local.terminal import note
from shared.administration import SETTLE_S
from shared.erasure import INDEX_LAG_S
from shared.errors import SluiceError
from shared.settings import Settings
from shared.table import Store


@dataclass(frozen=True, slots=True)
class Place:
    """A store; `name` says where it is, for people.

    `settle_s` is how long it takes until a change is seen by all who work there, `lag_s` for how
    long an index may be behind.
    """

    store: Store
    name: str
    settle_s: float = SETTLE_S
    lag_s: float = INDEX_LAG_S


def run(
    options: Namespace, work: Callable[[Place], Coroutine[Any, Any, int]], *, make: bool = False
) -> int:
    """Do a command's work at the place that its options name. Raises `Failed`.

    With `make` the local run's database is made where there is none.
    """
    try:
        with place(options, make=make) as found:
            if sys.stderr.isatty():
                note(f"In {found.name}:")
            return asyncio.run(work(found))
    except SluiceError as error:
        raise Failed(said(error)) from error


def said(error: SluiceError) -> str:
    """An error's message, as what follows `sluice: `."""
    return error.detail[:1].lower() + error.detail[1:].removesuffix(".")


@contextmanager
def place(options: Namespace, *, make: bool) -> Iterator[Place]:
    """Raises `Failed` where there is no such place."""
    if options.stack:
        yield _stack(options.stack, options.profile, options.region)
        return
    if options.profile or options.region:
        raise Failed("--profile and --region go with --stack")
    settings = Settings.from_env()
    if not settings.dynamodb_endpoint:
        with _local_run(settings, options.db or DB, make=make) as found:
            yield found
    elif options.db:
        raise Failed("SLUICE_DYNAMODB_ENDPOINT names the database: --db does not")
    else:
        name = f"the database at {settings.dynamodb_endpoint}"
        yield Place(database.connect(settings, own=False), name)


@contextmanager
def _local_run(settings: Settings, db: Path, *, make: bool) -> Iterator[Place]:
    """The database of `sluice dev`, running or not."""
    if not make and not db.exists():
        raise Failed(
            f"there is no database {db} yet: `sluice dev` or `sluice tenant add` makes one"
        )
    with ExitStack() as stack:
        try:
            endpoint, state, settle_s = stack.enter_context(dynoxide(db)), "not running", 0.0
        except InUse as used:
            if not used.endpoint:
                raise
            endpoint, state, settle_s = used.endpoint, "running", SETTLE_S
        found = replace(settings, dynamodb_endpoint=endpoint)
        name = f"the local run on {db} ({state})"
        yield Place(database.connect(found, own=True), name, settle_s, lag_s=0)


def _stack(stack: str, profile: str | None, region: str | None) -> Place:
    """A deployed stack, found by the outputs that its deployment left."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = aws.session(profile, region)
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        names = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
        if profile:
            # The store makes its client by botocore's defaults, of which this is one.
            os.environ["AWS_PROFILE"] = profile
        settings = Settings(
            streams_table=names["StreamsTableName"],
            tenants_table=names["TenantsTableName"],
            audit_table=names["AuditTableName"],
            region=session.region_name,
        )
        return Place(dynamodb(settings), f"the stack {stack} in {session.region_name}")
    except KeyError as error:
        raise Failed(f"the stack {stack} has no output {error}: is it a Sluice stack?") from error
    except (BotoCoreError, ClientError) as error:
        raise Failed(f"AWS does not tell of the stack {stack}: {error}") from error
