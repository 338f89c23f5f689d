"""Our OpenAPI document against what the functions do: their routes, and generated requests."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, cycle
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection

from functions import api, stream
from functions.produce import produce
from functions.wiring import Services, open_endpoints
from local.server import one_port
from shared.administration import Administration
from shared.dialects import native
from shared.dialects.openapi import encoded
from shared.dialects.openapi.operations import OPERATIONS
from shared.errors import InvalidRequest
from shared.middleware.authorization import Endpoint
from shared.records import StreamKey, is_stream_id
from shared.settings import Settings
from tests.functions.conftest import Sluice, client, start_body
from tests.model_store import ModelStore

# --- The routes ---


@pytest.mark.parametrize("function", ["stream", "api"])
async def test_each_function_gives_it_to_anyone(sluice: Sluice, function: str) -> None:
    async with client(getattr(sluice, f"{function}_app"), key="") as anyone:
        answer = await anyone.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(encoded(Settings().version))


def test_a_cold_start_does_not_import_it() -> None:
    code = "import functions.stream, functions.api, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "shared.dialects.native" in done.stdout
    assert "openapi" not in done.stdout


async def test_it_tells_of_every_endpoint_and_of_no_other(sluice: Sluice) -> None:
    served: dict[tuple[str, str], list[tuple[str, Endpoint]]] = {}
    for function, endpoints in (
        ("stream", stream.endpoints(sluice.services)),
        ("api", api.endpoints(sluice.services)),
    ):
        for endpoint in [*endpoints, *open_endpoints(sluice.services)]:
            path = endpoint.path.replace(":path}", "}")
            served.setdefault((endpoint.method, path), []).append((function, endpoint))
    told = {(operation.method, operation.path): operation for operation in OPERATIONS}
    assert told.keys() == served.keys()
    for name, operation in told.items():
        assert operation.functions == tuple(function for function, _ in served[name])
        for _, endpoint in served[name]:
            assert (operation.scope, operation.counted) == (endpoint.scope, endpoint.counted)


# --- Generated requests ---

QUICK = "demo?tokens=3&rate=0&ttft=0"
Case = schemathesis.Case[Any]
#: As many that no run comes to it.
PLENTY = 10**6


class Driven:
    """All functions at one address, with streams to ask for; each has the records 0 to 2."""

    def __init__(self) -> None:
        self._store = ModelStore()

        async def launch(key: StreamKey) -> None:
            await produce(services, key)  # to its end, so that no answer depends on its speed

        services = Services.on(self._store, Settings(), launch=launch)
        self._keys = count()
        self._streams: Iterator[str] = iter(())
        self._erased: Iterator[str] = iter(())
        self._erasure = ""
        self.app = one_port(stream.build(services), api.build(services))

    async def prepare(self) -> None:
        administration = Administration(self._store)
        await administration.ensure("demo", "demo")
        limits = {"streams_at_once": PLENTY, "starts_per_minute": PLENTY}
        await administration.set_policy("demo", lambda document: document.update(limits=limits))
        async with client(self.app) as caller:
            begun = [
                (await caller.post("/v1/streams", json=start_body(QUICK))).headers["stream-id"]
                for _ in range(8)
            ]
            erasing = await caller.delete("/v1/users/ann/streams")
        self._streams, self._erased = cycle(begun[:5]), cycle(begun[5:])
        self._erasure = erasing.json()["id"]

    def fit(self, case: Case) -> None:
        """Put into a request what no schema can say, where it would be valid but for that."""
        at, query, headers = case.path_parameters, case.query, case.headers
        if is_stream_id(str(at.get("stream"))):
            at["stream"] = next(self._erased if case.method == "DELETE" else self._streams)
        if "erasure" in at:
            at["erasure"] = self._erasure
        for place, name in ((query, "after"), (headers, "Last-Event-ID")):
            if name in place:
                place[name] = _offset(place[name])
        if _is_key(str(headers.get("Idempotency-Key", ""))):
            headers["Idempotency-Key"] = f"key {next(self._keys)}"
        if case.operation.path == "/v1/audit" and isinstance(query.get("page"), str):
            del query["page"]
        if isinstance(case.body, dict):
            self._fit_start(case.body)

    def _fit_start(self, body: dict[str, Any]) -> None:
        model, parent, pacing = body.get("model"), body.get("parent"), body.get("pacing")
        if isinstance(model, str) and 1 <= len(model) <= native.MODEL_CHARS_MAX:
            body["model"] = QUICK
        if isinstance(parent, str) and is_stream_id(parent):
            body["parent"] = next(self._streams)
        interval = pacing.get("flush_interval_ms") if isinstance(pacing, dict) else None
        if isinstance(interval, list) and all(type(bound) in (int, float) for bound in interval):
            interval.sort()


def _is_key(value: str) -> bool:
    try:
        return native.decode_idempotency({"idempotency-key": value}, b"") is not None
    except InvalidRequest:
        return False


def _offset(value: Any) -> Any:
    """One that a short stream has, of the same type; or the value, where that is none."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return value
    valid = -1 <= number <= native.SEQ_MAX and not isinstance(value, bool)
    return type(value)(number % 4 - 1) if valid else value


def described(**generation: Any) -> schemathesis.BaseSchema:
    """The document as the functions give it, to draw the same requests from each time."""
    config = {
        "seed": 1,
        "auth": {"openapi": {"key": {"bearer": "demo"}}},
        "generation": {"deterministic": True, "database": "none"} | generation,
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 404]}},
    }
    return schemathesis.openapi.from_asgi(
        "/openapi.json", DRIVEN.app, config=SchemathesisConfig.from_dict(config)
    )


DRIVEN = Driven()
DESCRIBED = described(**{"max-examples": 15})
MACHINE = described(mode="positive").as_state_machine()


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    asyncio.run(DRIVEN.prepare())


@DESCRIBED.parametrize()
def test_what_is_asked_is_answered_as_it_says(case: Case) -> None:
    """Requests by the document, and against it: bounds, types, methods, credentials."""
    DRIVEN.fit(case)
    # A header that nobody knows is no fault.
    strange = "x-schemathesis-unknown-property" in case.headers
    case.call_and_validate(excluded_checks=[negative_data_rejection] if strange else [])


class Machine(MACHINE):  # type: ignore[misc, valid-type] # it is made from the document
    """Goes on with what an answer holds: follows, polls, cancels, erases what it has started."""

    def before_call(self, case: Case) -> None:
        at = dict(case.path_parameters)
        DRIVEN.fit(case)
        case.path_parameters |= at


TestOneRequestAfterAnother = Machine.TestCase
TestOneRequestAfterAnother.settings = settings(
    max_examples=20,
    stateful_step_count=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
