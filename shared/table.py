"""The only file that talks to DynamoDB.

`Store` is what the rest of Sluice asks of a database: items of strings and integers, writes that
happen once or tell what stands in their way, reads by key. `DynamoDB` is the real one; the tests
have a model of it in memory that can fail in every way that we know of.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from shared.errors import Busy, Unavailable
from shared.records import Item, Value
from shared.schema import Index, Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


@dataclass(frozen=True, slots=True)
class Put:
    """Write an item whose key is still free."""

    table: Table
    item: Item


@dataclass(frozen=True, slots=True)
class Update:
    """Change attributes of an item that exists and has the values of `where`.

    Where `where` is None any item will do, and none too: then it is made. `add` adds to numbers, of
    which a missing one counts as 0; asked twice it adds twice, but in a transaction with one token.
    """

    table: Table
    key: Item
    set: Item = field(default_factory=dict)
    add: Mapping[str, int] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    where: Item | None = field(default_factory=dict)

    def applied(self, item: Item) -> Item:
        """What it makes of an item."""
        after = {**item, **self.key, **self.set}
        for name, number in self.add.items():
            after[name] = int(after.get(name, 0)) + number
        return {name: value for name, value in after.items() if name not in self.remove}


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an item, whether it is there or not."""

    table: Table
    key: Item


Write = Put | Update | Delete


@dataclass(frozen=True, slots=True)
class Query:
    """Ask for up to `limit` items of a partition, in the order of their sort keys.

    Forwards from `start` (which is included), or with `newest_first` backwards from before `start`
    (which is not); or those whose sort key begins with `prefix`. An index, whose items lag behind
    the table's, cannot be read consistently.
    """

    table: Table
    partition: str
    limit: int
    start: Value | None = None
    prefix: str | None = None
    index: Index | None = None
    newest_first: bool = False
    consistent: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why nothing of a transaction was written.

    One entry a write, in their order: None where that write could have gone ahead, else the item
    that stood in its way (an empty one where an update found no item).
    """

    holders: tuple[Item | None, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found; `more` where its limit, or a page of 1 MB, ended it."""

    items: list[Item]
    more: bool


class Store(Protocol):
    """Every method raises `Unavailable` when the database does not answer in time.

    An `Unavailable` write may have happened all the same: ask again with the same content.
    """

    async def write(self, write: Write) -> Item | None:
        """None when written; else the item that stood in its way, as in a `Conflict`."""
        ...

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        """All of the writes or none; calls with one token (≤ 36 characters) are one call."""
        ...

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        """Put these items (≤ 25), whatever holds their keys; some may be written where it fails."""
        ...

    async def get(self, table: Table, key: Item) -> Item | None:
        """The item, read consistently."""
        ...

    async def query(self, query: Query) -> Found:
        """The items that it asks for; fewer where a page of 1 MB is full."""
        ...


#: Calls under way at once; a function has one request at a time, a local run many.
CALLS_MAX = 16


class DynamoDB:
    """`Store` on DynamoDB, by botocore on threads of its own.

    `names` maps a table's logical name to its real one. Two clients of one process share nothing.
    """

    def __init__(self, names: Mapping[str, str], *, region: str, endpoint: str = "") -> None:
        # boto3 on top of botocore would cost a cold start another 26 ms and give us nothing here.
        from botocore.config import Config
        from botocore.session import Session

        self._names = dict(names)
        client = Session().create_client(
            "dynamodb",
            region_name=region,
            endpoint_url=endpoint or None,
            config=Config(
                connect_timeout=1,
                read_timeout=3,
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=CALLS_MAX,
                tcp_keepalive=True,
                # Our calls are few and typed; checking each again is a tenth of its CPU.
                parameter_validation=False,
            ),
        )
        self._client = cast("DynamoDBClient", client)
        self._threads = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="dynamodb")

    async def write(self, write: Write) -> Item | None:
        name, arguments = self._asked(write)
        methods: dict[str, Callable[..., Any]] = {
            "Put": self._client.put_item,
            "Update": self._client.update_item,
            "Delete": self._client.delete_item,
        }
        try:
            await self._call(methods[name], **arguments)
        except _Refused as refused:
            return refused.holders[0]
        return None

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        items = [{name: arguments} for name, arguments in map(self._asked, writes)]
        try:
            await self._call(
                self._client.transact_write_items, TransactItems=items, ClientRequestToken=token
            )
        except _Refused as refused:
            return Conflict(refused.holders)
        return None

    async def overwrite(self, table: Table, items: Sequence[Item]) -> None:
        name = self._names[table.name]
        asked: Any = {name: [{"PutRequest": {"Item": _encode(item)}} for item in items]}
        for attempt in range(_CONFLICT_TRIES_MAX):
            reply = await self._call(self._client.batch_write_item, RequestItems=asked)
            asked = reply.get("UnprocessedItems")
            if not asked:
                return
            pause_s = min(0.05 * 2**attempt, 1.0)
            await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311
        raise Unavailable("The database takes no more writes just now.")

    async def get(self, table: Table, key: Item) -> Item | None:
        reply = await self._call(
            self._client.get_item,
            TableName=self._names[table.name],
            Key=_encode(key),
            ConsistentRead=True,
        )
        return _decode(reply["Item"]) if "Item" in reply else None

    async def query(self, query: Query) -> Found:
        shape = query.index or query.table
        condition, values = "#p = :p", {":p": _value(query.partition)}
        names = {"#p": shape.partition.name}
        if query.start is not None:
            condition += " AND #s < :s" if query.newest_first else " AND #s >= :s"
            values[":s"] = _value(query.start)
            names["#s"] = shape.sort.name
        elif query.prefix is not None:
            condition += " AND begins_with(#s, :s)"
            values[":s"] = _value(query.prefix)
            names["#s"] = shape.sort.name
        reply = await self._call(
            self._client.query,
            TableName=self._names[query.table.name],
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ScanIndexForward=not query.newest_first,
            Limit=query.limit,
            **(
                {"IndexName": query.index.name}
                if query.index
                else {"ConsistentRead": query.consistent}
            ),
        )
        return Found([_decode(item) for item in reply["Items"]], "LastEvaluatedKey" in reply)

    def _asked(self, write: Write) -> tuple[str, dict[str, Any]]:
        """The name and the arguments of a write, alone or within a transaction."""
        table = self._names[write.table.name]
        if isinstance(write, Put):
            return "Put", {
                "TableName": table,
                "Item": _encode(write.item),
                "ConditionExpression": "attribute_not_exists(#p)",
                "ExpressionAttributeNames": {"#p": write.table.partition.name},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        key = {"TableName": table, "Key": _encode(write.key)}
        if isinstance(write, Delete):
            return "Delete", key
        return "Update", key | _change(write)

    async def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(_blocking, method, arguments))


class _Refused(Exception):
    """A condition did not hold; nothing was written."""

    def __init__(self, holders: tuple[Item | None, ...]) -> None:
        super().__init__()
        self.holders = holders


#: How often a write is asked again after it met another writer's transaction: the counters of a
#: tenant are in two of each answer, and while one is under way the others must come again.
_CONFLICT_TRIES_MAX = 10
_CONFLICT_PAUSE_MAX_S = 0.2
#: Two writers met on one item: the outcome is open until one asks again.
_CONTENTION = frozenset(
    {"TransactionConflict", "TransactionInProgressException", "TransactionConflictException"}
)


def _blocking(method: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """One call with botocore's own retries, and our retries where transactions met."""
    from botocore.exceptions import BotoCoreError, ClientError

    for attempt in range(_CONFLICT_TRIES_MAX):
        try:
            return method(**arguments)
        except ClientError as error:
            reasons = error.response.get("CancellationReasons", [])
            codes = {error.response["Error"]["Code"], *(r.get("Code") for r in reasons)}
            if "ConditionalCheckFailedException" in codes or "ConditionalCheckFailed" in codes:
                raise _Refused(_holders(error.response, reasons)) from None
            if not codes & _CONTENTION:
                raise Unavailable(f"The database answered {_name(codes)}.") from error
        except BotoCoreError as error:
            raise Unavailable("The database does not answer.") from error
        pause_s = min(0.02 * 2**attempt, _CONFLICT_PAUSE_MAX_S)
        time.sleep(random.uniform(0, pause_s))  # noqa: S311 (jitter, not a secret)
    raise Busy("The database is too busy with this item.")


def _change(update: Update) -> dict[str, Any]:
    """The expressions of an update."""
    names: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}

    def name(attribute: str) -> str:
        names[f"#{len(names)}"] = attribute
        return f"#{len(names) - 1}"

    def value(content: Value) -> str:
        values[f":{len(values)}"] = _value(content)
        return f":{len(values) - 1}"

    clauses = {
        "SET": [f"{name(n)} = {value(v)}" for n, v in update.set.items()],
        "ADD": [f"{name(n)} {value(v)}" for n, v in update.add.items()],
        "REMOVE": [name(n) for n in update.remove],
    }
    change: dict[str, Any] = {
        "UpdateExpression": " ".join(
            f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts
        ),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if update.where is not None:
        change["ConditionExpression"] = " AND ".join(
            [f"attribute_exists({name(update.table.partition.name)})"]
            + [f"{name(n)} = {value(v)}" for n, v in update.where.items()]
        )
    change["ExpressionAttributeNames"] = names
    if values:
        change["ExpressionAttributeValues"] = values
    return change


def _holders(response: Any, reasons: Sequence[Any]) -> tuple[Item | None, ...]:
    if not reasons:
        return (_decode(response.get("Item", {})),)
    return tuple(
        _decode(r.get("Item", {})) if r.get("Code") == "ConditionalCheckFailed" else None
        for r in reasons
    )


def _name(codes: set[Any]) -> str:
    return ", ".join(sorted(str(code) for code in codes if code and code != "None"))


def _value(value: Value) -> dict[str, str]:
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def _encode(item: Item) -> dict[str, Any]:
    return {name: _value(value) for name, value in item.items()}


def _decode(attributes: Mapping[str, Mapping[str, str]]) -> Item:
    return {
        name: value["S"] if "S" in value else int(value["N"]) for name, value in attributes.items()
    }
