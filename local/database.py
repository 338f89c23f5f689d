"""The database of the command line: its tables, and how its clients are made."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from functions.wiring import dynamodb
from local.dynoxide import dynoxide
from local.errors import Failed
from shared.schema import TABLES, Index, Table
from shared.settings import Settings
from shared.table import DynamoDB

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


@contextmanager
def endpoint(settings: Settings, db: Path | None) -> Iterator[str]:
    """Where the database answers: what the settings say, else one of our own on `db`."""
    if settings.dynamodb_endpoint:
        yield settings.dynamodb_endpoint
    else:
        with dynoxide(db) as own:
            yield own


def connect(settings: Settings, *, own: bool) -> DynamoDB:
    """The store at the settings' endpoint, whose tables are made where they are missing.

    A database on this machine takes any credentials: without real ones, and for our own database
    always, it is given some that mean nothing. Raises `Failed`.
    """
    address = settings.dynamodb_endpoint
    nothing_secret = own or (_is_loopback(address) and not _configured_credentials())
    try:
        with _dummy_credentials() if nothing_secret else nullcontext():
            _create_tables(settings)
            return dynamodb(settings)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise Failed(f"the database at {address} answers {code}") from error
    except (BotoCoreError, ValueError) as error:
        raise Failed(f"no DynamoDB answers at {address} ({type(error).__name__})") from error


def _create_tables(settings: Settings) -> None:
    client = cast(
        "DynamoDBClient",
        Session().create_client(
            "dynamodb",
            region_name=settings.region,
            endpoint_url=settings.dynamodb_endpoint,
            config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 2}),
        ),
    )
    for table in TABLES:
        name = getattr(settings, f"{table.name}_table")
        try:
            client.describe_table(TableName=name)
        except client.exceptions.ResourceNotFoundException:
            _create(client, name, table)


def _create(client: "DynamoDBClient", name: str, table: Table) -> None:
    shapes: tuple[Table | Index, ...] = (table, *table.indexes)
    attributes = {a.name: a.type for shape in shapes for a in (shape.partition, shape.sort)}
    indexes: list[Any] = [
        {
            "IndexName": index.name,
            "KeySchema": _key(index.partition.name, index.sort.name),
            "Projection": {
                "ProjectionType": "INCLUDE",
                "NonKeyAttributes": list(index.projected),
            },
        }
        for index in table.indexes
    ]
    more: dict[str, Any] = {"GlobalSecondaryIndexes": indexes} if indexes else {}
    client.create_table(
        TableName=name,
        KeySchema=_key(table.partition.name, table.sort.name),
        AttributeDefinitions=[
            {"AttributeName": attribute, "AttributeType": kind}
            for attribute, kind in attributes.items()
        ],
        BillingMode="PAY_PER_REQUEST",
        **more,
    )
    client.get_waiter("table_exists").wait(
        TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    client.update_time_to_live(
        TableName=name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": table.expiry},
    )


def _key(partition: str, sort: str) -> list[Any]:
    return [
        {"AttributeName": partition, "KeyType": "HASH"},
        {"AttributeName": sort, "KeyType": "RANGE"},
    ]


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _configured_credentials() -> bool:
    """Whether botocore would find credentials, without asking the network for them."""
    resolver = Session().get_component("credential_provider")
    for asks_network in ("container-role", "iam-role"):
        resolver.remove(asks_network)
    return resolver.load_credentials() is not None


@contextmanager
def _dummy_credentials() -> Iterator[None]:
    """While a client is made, which keeps them; others, for a model, look for real ones later."""
    dummies = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    hidden = {name: os.environ.pop(name, None) for name in (*dummies, "AWS_SESSION_TOKEN")}
    os.environ.update(dummies)
    try:
        yield
    finally:
        for name, value in hidden.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
