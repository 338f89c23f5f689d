"""Every request that there is, as it goes over the wire."""

from collections.abc import Mapping
from urllib.parse import quote

from sluice_client.machine import Ask, Times
from sluice_client.naming import stream_path
from sluice_client.question import Question

PAGE_CHUNKS = 1000
ASYNC = {"Prefer": "respond-async"}


def start(times: Times, question: Question, *, proven: bool) -> Ask:
    """The start, answered by the stream. `proven`: streams come through, so this one has time."""
    key = {"Idempotency-Key": question.idempotency_key}
    return _stream(times, "POST", "/v1/streams", key, question.body(), proven=proven)


def start_async(times: Times, question: Question) -> Ask:
    """The start, answered at once with the stream's name, also where that runs already."""
    headers = {"Idempotency-Key": question.idempotency_key, **ASYNC}
    return whole(times, "POST", "/v1/streams", headers, question.body())


def events(times: Times, stream: str, after: int, *, proven: bool) -> Ask:
    last = {"Last-Event-ID": str(after)} if after >= 0 else {}
    return _stream(times, "GET", stream_path(stream, "/events"), last, proven=proven)


def chunks(times: Times, stream: str, after: int) -> Ask:
    query = f"?after={after}&limit={PAGE_CHUNKS}&wait={times.poll_s}"
    return whole(times, "GET", stream_path(stream, f"/chunks{query}"))


def steer(times: Times, stream: str, how: str) -> Ask:
    """`how` is `cancel`, `pause`, `resume` or `grant`, which shows a credential asked for anew."""
    return whole(times, "POST", stream_path(stream, f"/{how}"), renews=how == "grant")


def streams(times: Times, limit: int, page: str | None) -> Ask:
    query = f"?limit={limit}" + (f"&page={quote(page, safe='')}" if page else "")
    return whole(times, "GET", f"/v1/streams{query}")


def export(times: Times, stream: str) -> Ask:
    path = stream_path(stream, "/export")
    return Ask("GET", path, times.silence_s, times.silence_s, streams=True)


def whole(
    times: Times,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    renews: bool = False,
) -> Ask:
    """One whose reply is no stream."""
    return Ask(method, path, times.reply_s, times.reply_s, headers or {}, body, renews=renews)


def _stream(
    times: Times,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    proven: bool,
) -> Ask:
    silence_s = times.silence_s if proven else times.first_byte_s
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
    return Ask(method, path, times.first_byte_s, silence_s, headers, body, streams=True)
