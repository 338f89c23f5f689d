"""The table: what DynamoDB is asked, and what its answers and failures become."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from shared.errors import Unavailable
from shared.records import Item
from shared.schema import STREAMS, TENANTS
from shared.table import (
    _CONFLICT_TRIES_MAX,
    Conflict,
    Delete,
    DynamoDB,
    Found,
    Put,
    Query,
    Update,
    Write,
)

ITEM: Item = {"pk": "tenant#stream", "seq": 1, "text": "hello"}
WIRE = {"pk": {"S": "tenant#stream"}, "seq": {"N": "1"}, "text": {"S": "hello"}}
PUT = {
    "TableName": "real-streams",
    "Item": WIRE,
    "ConditionExpression": "attribute_not_exists(#p)",
    "ExpressionAttributeNames": {"#p": "pk"},
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
}


class Wire:
    """DynamoDB's end of the wire: keeps each request, and answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers: list[tuple[int, dict[str, Any]] | Exception] = []

    def answers(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers += [a if isinstance(a, Exception) else (200, a) for a in answers]

    def refuses(self, code: str, *, times: int = 1, status: int = 400, **more: Any) -> None:
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "secret", **more}
        self._answers += [(status, body)] * times

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        self.asked.append((operation, json.loads(request.body)))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        response: Any = AWSResponse(request.url, answer[0], HTTPHeaders(), None)
        response._content = json.dumps(answer[1]).encode()
        return cast("AWSResponse", response)


@pytest.fixture(scope="module")
def made() -> Iterator[DynamoDB]:
    """One for all tests: botocore takes longer to make a client than most tests to use it.

    Its budget of retries is theirs together; they take a third of it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRET")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        made = DynamoDB({"streams": "real-streams", "tenants": "real-tenants"}, region="eu-west-1")
    yield made
    made._threads.shutdown()
    made._client.close()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def store(made: DynamoDB, wire: Wire) -> Iterator[DynamoDB]:
    events = made._client.meta.events
    events.register("before-send.dynamodb", cast("Any", wire))
    yield made
    events.unregister("before-send.dynamodb", cast("Any", wire))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries, neither botocore's nor ours."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)


async def test_a_put_writes_a_free_key_only(store: DynamoDB, wire: Wire) -> None:
    wire.answers({})
    assert await store.write(Put(STREAMS, ITEM)) is None
    assert wire.asked == [("PutItem", PUT)]


async def test_a_put_that_is_refused_tells_who_holds_the_key(store: DynamoDB, wire: Wire) -> None:
    wire.refuses("ConditionalCheckFailedException", Item=WIRE)
    assert await store.write(Put(STREAMS, ITEM)) == ITEM
    assert len(wire.asked) == 1


async def test_a_transaction_is_one_call_with_its_token(store: DynamoDB, wire: Wire) -> None:
    wire.answers({})
    summary: Item = {"pk": "tenant#stream", "seq": -1}
    writes: list[Write] = [
        Put(STREAMS, ITEM),
        Update(STREAMS, summary, {"status": "failed", "at": 2}),
    ]
    assert await store.transact(writes, "token") is None
    update = {
        "TableName": "real-streams",
        "Key": {"pk": {"S": "tenant#stream"}, "seq": {"N": "-1"}},
        "UpdateExpression": "SET #0 = :0, #1 = :1",
        "ConditionExpression": "attribute_exists(#2)",
        "ExpressionAttributeNames": {"#0": "status", "#1": "at", "#2": "pk"},
        "ExpressionAttributeValues": {":0": {"S": "failed"}, ":1": {"N": "2"}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    asked = {"TransactItems": [{"Put": PUT}, {"Update": update}], "ClientRequestToken": "token"}
    assert wire.asked == [("TransactWriteItems", asked)]


async def test_an_update_says_all_that_it_changes_and_on_what_condition(
    store: DynamoDB, wire: Wire
) -> None:
    wire.answers({})
    update = Update(STREAMS, {"pk": "p", "seq": 1}, {"a": "x"}, {"n": -2}, ("gone",), {"rev": 3})
    assert await store.write(update) is None
    asked = {
        "TableName": "real-streams",
        "Key": {"pk": {"S": "p"}, "seq": {"N": "1"}},
        "UpdateExpression": "SET #0 = :0 ADD #1 :1 REMOVE #2",
        "ConditionExpression": "attribute_exists(#3) AND #4 = :2",
        "ExpressionAttributeNames": {"#0": "a", "#1": "n", "#2": "gone", "#3": "pk", "#4": "rev"},
        "ExpressionAttributeValues": {":0": {"S": "x"}, ":1": {"N": "-2"}, ":2": {"N": "3"}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    assert wire.asked == [("UpdateItem", asked)]


async def test_an_update_without_a_condition_makes_the_item(store: DynamoDB, wire: Wire) -> None:
    wire.answers({})
    assert (
        await store.write(Update(STREAMS, {"pk": "p", "seq": 1}, add={"n": 1}, where=None)) is None
    )
    assert "ConditionExpression" not in wire.asked[0][1]


async def test_a_delete_has_no_condition(store: DynamoDB, wire: Wire) -> None:
    wire.answers({})
    assert await store.write(Delete(STREAMS, {"pk": "p", "seq": 1})) is None
    key = {"TableName": "real-streams", "Key": {"pk": {"S": "p"}, "seq": {"N": "1"}}}
    assert wire.asked == [("DeleteItem", key)]


async def test_items_are_overwritten_until_none_is_left_over(store: DynamoDB, wire: Wire) -> None:
    second = {"PutRequest": {"Item": {"pk": {"S": "p"}, "seq": {"N": "2"}}}}
    wire.answers({"UnprocessedItems": {"real-streams": [second]}}, {"UnprocessedItems": {}})
    await store.overwrite(STREAMS, [ITEM, {"pk": "p", "seq": 2}])
    assert [asked["RequestItems"]["real-streams"] for _, asked in wire.asked] == [
        [{"PutRequest": {"Item": WIRE}}, second],
        [second],
    ]


async def test_an_overwrite_gives_up_on_what_is_never_taken(store: DynamoDB, wire: Wire) -> None:
    left = {"UnprocessedItems": {"real-streams": [{"PutRequest": {"Item": WIRE}}]}}
    wire.answers(*[left] * _CONFLICT_TRIES_MAX)
    with pytest.raises(Unavailable):
        await store.overwrite(STREAMS, [ITEM])


async def test_a_query_asks_for_a_prefix(store: DynamoDB, wire: Wire) -> None:
    wire.answers({"Items": []})
    assert await store.query(Query(TENANTS, "tenant", 5, prefix="key#")) == Found([], False)
    asked = wire.asked[0][1]
    assert asked["KeyConditionExpression"] == "#p = :p AND begins_with(#s, :s)"
    assert asked["ExpressionAttributeValues"] == {":p": {"S": "tenant"}, ":s": {"S": "key#"}}


async def test_a_transaction_that_is_refused_tells_what_stood_in_its_way(
    store: DynamoDB, wire: Wire
) -> None:
    reasons = [
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Item": WIRE},
        {"Code": "ConditionalCheckFailed"},
        {"Code": "TransactionConflict"},
    ]
    wire.refuses("TransactionCanceledException", CancellationReasons=reasons)
    conflict = await store.transact([Put(STREAMS, ITEM)] * 4, "token")
    assert conflict == Conflict((None, ITEM, {}, None))


@pytest.mark.parametrize(
    "code",
    ["TransactionConflictException", "TransactionInProgressException"],
)
async def test_writers_that_meet_are_told_to_ask_again(
    store: DynamoDB, wire: Wire, code: str
) -> None:
    wire.refuses(code, times=2)
    wire.answers({})
    assert await store.write(Put(STREAMS, ITEM)) is None
    assert [asked for _, asked in wire.asked] == [PUT] * 3


async def test_transactions_that_meet_ask_again_with_the_same_token(
    store: DynamoDB, wire: Wire
) -> None:
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    wire.refuses("TransactionCanceledException", CancellationReasons=reasons)
    wire.answers({})
    assert await store.transact([Put(STREAMS, ITEM)] * 2, "token") is None
    assert [asked["ClientRequestToken"] for _, asked in wire.asked] == ["token"] * 2


async def test_writers_that_meet_too_often_are_told_so(store: DynamoDB, wire: Wire) -> None:
    wire.refuses("TransactionConflictException", times=_CONFLICT_TRIES_MAX)
    with pytest.raises(Unavailable):
        await store.write(Put(STREAMS, ITEM))
    assert len(wire.asked) == _CONFLICT_TRIES_MAX


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://secret"),
        ConnectTimeoutError(endpoint_url="https://secret"),
        ReadTimeoutError(endpoint_url="https://secret"),
    ],
)
async def test_a_database_that_does_not_answer_is_unavailable(
    store: DynamoDB, wire: Wire, error: Exception
) -> None:
    wire.answers(error, error, error)
    with pytest.raises(Unavailable) as raised:
        await store.write(Put(STREAMS, ITEM))
    assert len(wire.asked) == 3
    _tells_nothing(raised.value)


async def test_a_reply_that_was_lost_ends_in_ones_own_item(store: DynamoDB, wire: Wire) -> None:
    wire.answers(ReadTimeoutError(endpoint_url="https://secret"))
    wire.refuses("ConditionalCheckFailedException", Item=WIRE)
    assert await store.write(Put(STREAMS, ITEM)) == ITEM


@pytest.mark.parametrize(
    ("code", "status", "times"),
    [
        ("ProvisionedThroughputExceededException", 400, 3),
        ("ThrottlingException", 400, 3),
        ("InternalServerError", 500, 3),
        ("AccessDeniedException", 400, 1),
        ("ResourceNotFoundException", 400, 1),
        ("ValidationException", 400, 1),
    ],
)
async def test_a_database_that_refuses_is_unavailable_and_its_words_stay_inside(
    store: DynamoDB, wire: Wire, code: str, status: int, times: int
) -> None:
    wire.refuses(code, status=status, times=times)
    with pytest.raises(Unavailable) as raised:
        await store.get(STREAMS, {"pk": "tenant#stream", "seq": 1})
    assert len(wire.asked) == times
    assert raised.value.status == 503
    _tells_nothing(raised.value)


def _tells_nothing(error: Unavailable) -> None:
    told = json.dumps(error.problem()) + str(error)
    assert not [word for word in ("secret", "SECRET", "hello", "tenant#stream") if word in told]


async def test_an_item_is_got_consistently(store: DynamoDB, wire: Wire) -> None:
    wire.answers({"Item": WIRE}, {})
    key: Item = {"pk": "tenant#stream", "seq": 1}
    assert await store.get(STREAMS, key) == ITEM
    assert await store.get(STREAMS, key) is None
    asked = {
        "TableName": "real-streams",
        "Key": {"pk": {"S": "tenant#stream"}, "seq": {"N": "1"}},
        "ConsistentRead": True,
    }
    assert wire.asked == [("GetItem", asked)] * 2


async def test_a_partition_is_queried_forwards_and_backwards(store: DynamoDB, wire: Wire) -> None:
    wire.answers({"Items": [WIRE]}, {"Items": []}, {"Items": []})
    found = await store.query(Query(STREAMS, "p", 7, start=3, consistent=True))
    assert found == Found([ITEM], more=False)
    await store.query(Query(STREAMS, "p", 7, start=3, newest_first=True))
    await store.query(Query(TENANTS, "p", 1))
    forwards, backwards, whole = (asked for _, asked in wire.asked)
    assert forwards == {
        "TableName": "real-streams",
        "KeyConditionExpression": "#p = :p AND #s >= :s",
        "ExpressionAttributeNames": {"#p": "pk", "#s": "seq"},
        "ExpressionAttributeValues": {":p": {"S": "p"}, ":s": {"N": "3"}},
        "ScanIndexForward": True,
        "Limit": 7,
        "ConsistentRead": True,
    }
    assert backwards["KeyConditionExpression"] == "#p = :p AND #s < :s"
    assert (backwards["ScanIndexForward"], backwards["ConsistentRead"]) == (False, False)
    assert whole["KeyConditionExpression"] == "#p = :p"
    assert whole["TableName"] == "real-tenants"


async def test_a_query_tells_where_there_is_more(store: DynamoDB, wire: Wire) -> None:
    wire.answers({"Items": [WIRE], "LastEvaluatedKey": {"pk": {"S": "p"}}})
    assert await store.query(Query(STREAMS, "p", 7)) == Found([ITEM], more=True)


async def test_an_index_is_queried_by_its_own_names(store: DynamoDB, wire: Wire) -> None:
    wire.answers({"Items": []})
    await store.query(
        Query(STREAMS, "tenant", 2, start="s", index=STREAMS.indexes[0], newest_first=True)
    )
    ((_, asked),) = wire.asked
    assert asked["IndexName"] == "by_tenant"
    assert asked["ExpressionAttributeNames"] == {"#p": "tenant", "#s": "stream"}
    assert "ConsistentRead" not in asked  # an index has no such reads


async def test_a_slow_database_does_not_hold_up_the_event_loop(
    store: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, turn = asyncio.get_running_loop(), asyncio.Event()

    def wait_for_the_loop(**_: Any) -> dict[str, Any]:
        # Comes back only when the loop has had its turn meanwhile.
        asyncio.run_coroutine_threadsafe(turn.wait(), loop).result(timeout=10)
        return {}

    monkeypatch.setattr(store._client, "get_item", wait_for_the_loop)
    reading = asyncio.create_task(store.get(STREAMS, {"pk": "p", "seq": 1}))
    await asyncio.sleep(0)
    turn.set()
    assert await reading is None
