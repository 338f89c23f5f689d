"""How spans get to a collector: OTLP over HTTP, in JSON.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. By hand, as OpenTelemetry's own SDK and exporter
would make a cold start a quarter longer (docs/decisions/tracing.md). Only imported where a
collector is named.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import unquote

from urllib3 import PoolManager, Timeout
from urllib3.exceptions import ProtocolError

from shared.logger import logger
from shared.spans import Event, Span, Value
from shared.trace import Place

#: For how long an invocation waits for its collector at most, and our thread for each reply.
FLUSH_S, REPLY_S = 1.0, 3.0
#: For how long a collector is left alone that has failed.
QUIET_S = 30.0
#: What waits to be sent, and what goes into one request. Of more the oldest are lost.
WAITING_MAX, BATCH_MAX = 2048, 512

_PATH = "/v1/traces"


class Otlp:
    """Sends spans from one thread of its own, so that no answer waits for a collector.

    `endpoint` is the collector's base URL, and `resource` says who sends. `headers` gets what else
    a request carries, as `name=value` by commas, percent-encoded; it may block and raise.
    """

    def __init__(
        self,
        endpoint: str,
        resource: Mapping[str, Value],
        headers: Callable[[], str] = lambda: "",
    ) -> None:
        if not endpoint.startswith(("https://", "http://")):
            raise ValueError("SLUICE_OTLP_ENDPOINT is no URL")
        self._url = endpoint.rstrip("/").removesuffix(_PATH) + _PATH
        self._resource = {"attributes": _attributes(resource)}
        self._headers = headers
        self._waiting: deque[Span] = deque(maxlen=WAITING_MAX)
        self._quiet_until = 0.0
        self._thread = ThreadPoolExecutor(1, "otlp")
        # No redirects either: the headers are for this collector.
        self._http = PoolManager(retries=False, timeout=Timeout(REPLY_S))

    def take(self, span: Span) -> None:
        """Keep a span until it is sent."""
        self._waiting.append(span)

    async def flush(self) -> None:
        """Send what there is. Returns after `FLUSH_S` in any case; what is under way goes on."""
        if not self._waiting or time.monotonic() < self._quiet_until:
            return
        sent = asyncio.wrap_future(self._thread.submit(self._send))
        # Where it waits for its turn behind another one it is given up, and has lost nothing.
        await asyncio.wait((sent,), timeout=FLUSH_S)
        sent.cancel()

    def _send(self) -> None:
        while self._waiting and time.monotonic() >= self._quiet_until:
            spans = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            try:
                wrong = self._post(spans)
            except Exception as error:  # noqa: BLE001 - whatever is wrong there is no answer's
                wrong = type(error).__name__
            if wrong:
                self._quiet_until = time.monotonic() + QUIET_S
                logger.warning("spans were lost", extra={"error": wrong, "count": len(spans)})

    def _post(self, spans: list[Span]) -> str:
        """Send one request. Returns what the collector has against it, or nothing."""
        scope = {"scope": {"name": "sluice"}, "spans": [_encoded(span) for span in spans]}
        body = {"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}
        headers = _parsed(self._headers()) | {"content-type": "application/json"}
        request = partial(self._http.request, "POST", self._url, json.dumps(body), headers=headers)
        try:
            status = request().status
        except ProtocolError:
            status = request().status  # a kept connection broke while we were frozen
        return "" if status < 300 else f"HTTP {status}"


def _parsed(headers: str) -> dict[str, str]:
    """As in OTEL_EXPORTER_OTLP_HEADERS, which vendors tell their customers."""
    pairs = (part.partition("=") for part in headers.split(",") if part.strip())
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _encoded(span: Span) -> dict[str, Any]:
    failed = {"error.type": span.failed} if span.failed else {}
    return {
        **_ids(span.place),
        **({"parentSpanId": span.parent} if span.parent else {}),
        "name": span.name,
        "kind": int(span.role),
        "startTimeUnixNano": str(span.began_ns),
        "endTimeUnixNano": str(span.ended_ns),
        "attributes": _attributes(span.attributes | failed),
        "events": [_event(event) for event in span.events],
        "links": [_ids(link) for link in span.links],
        "status": {"code": 2} if span.failed else {},
    }


def _event(event: Event) -> dict[str, Any]:
    attributes = _attributes(event.attributes)
    return {"timeUnixNano": str(event.at_ns), "name": event.name, "attributes": attributes}


def _ids(place: Place) -> dict[str, Any]:
    return {"traceId": place.trace, "spanId": place.span}


def _attributes(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case _:
            return {"arrayValue": {"values": [_value(each) for each in value]}}
