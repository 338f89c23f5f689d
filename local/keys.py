"""`sluice key add`: a key for a tenant, in a local database or in a deployed stack."""

import asyncio
import os
import secrets
from dataclasses import replace
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from functions.wiring import dynamodb
from local import database
from local.dynoxide import InUse
from local.errors import Failed
from shared.errors import Unavailable
from shared.settings import Settings
from shared.table import Store
from shared.tenants import KEY_CHARS_MAX, Tenants, is_tenant

#: A key is stored after one round of SHA-256 only, so it must not be one that can be guessed.
KEY_CHARS_MIN = 16


def new_key() -> str:
    return f"sk_{secrets.token_urlsafe(32)}"


def check(tenant: str, key: str) -> None:
    """Raises `Failed` for a tenant's name or a key that no request could use."""
    if not is_tenant(tenant):
        raise Failed(
            "a tenant's name has 1 to 63 of a-z, 0-9 and the hyphen, and does not begin with one"
        )
    sound = key.isascii() and key.isprintable() and " " not in key
    if not (sound and KEY_CHARS_MIN <= len(key) <= KEY_CHARS_MAX):
        raise Failed(
            f"a key has {KEY_CHARS_MIN} to {KEY_CHARS_MAX} printable ASCII characters and no space"
        )


def add_locally(tenant: str, key: str, settings: Settings, db: Path) -> None:
    """Add a key to the database of the settings, else to that of `sluice dev`, running or not."""
    own = not settings.dynamodb_endpoint
    try:
        with database.endpoint(settings, db) as endpoint:
            found = replace(settings, dynamodb_endpoint=endpoint)
            _add(database.connect(found, own=own), tenant, key)
    except InUse as used:
        if not used.endpoint:
            raise
        running = replace(settings, dynamodb_endpoint=used.endpoint)
        _add(database.connect(running, own=True), tenant, key)


def add_to_stack(
    tenant: str, key: str, stack: str, *, profile: str | None, region: str | None
) -> None:
    """Add a key to a deployed stack, found by the outputs that its deployment left."""
    try:
        # boto3 itself does not look at AWS_REGION, which the deployment does.
        region = region or os.environ.get("AWS_REGION")
        session = boto3.Session(profile_name=profile, region_name=region)
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        names = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
        if profile:
            # The store makes its client by botocore's defaults, of which this is one.
            os.environ["AWS_PROFILE"] = profile
        settings = Settings(
            streams_table=names["StreamsTableName"],
            tenants_table=names["TenantsTableName"],
            region=session.region_name,
        )
        _add(dynamodb(settings), tenant, key)
    except KeyError as error:
        raise Failed(f"the stack {stack} has no output {error}: is it a Sluice stack?") from error
    except (BotoCoreError, ClientError) as error:
        raise Failed(f"AWS does not tell of the stack {stack}: {error}") from error


def _add(store: Store, tenant: str, key: str) -> None:
    try:
        added = asyncio.run(Tenants(store).add_key(tenant, key))
    except Unavailable as error:
        raise Failed(error.detail) from error
    if not added:
        raise Failed("this key is another tenant's already")
