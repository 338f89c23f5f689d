"""What spans say of requests, starts, producers, models and takeovers; and that by default none."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from functions.sweep import sweep
from functions.wiring import spans as spans_of
from shared.records import StreamKey
from shared.settings import Settings
from shared.spans import UNTOLD, Role, Span, Spans
from tests.functions.conftest import ASYNC, Sluice, begin, running, start_body

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = {"traceparent": f"00-{ID}-{PARENT}-01"}
UNRECORDED = {"traceparent": f"00-{ID}-{PARENT}-00"}


@dataclass
class Keeping:
    """A collector that keeps what it is told, and what of it was there at the last flush."""

    spans: list[Span] = field(default_factory=list)
    flushed: int = 0

    def take(self, span: Span) -> None:
        self.spans.append(span)

    async def flush(self) -> None:
        self.flushed = len(self.spans)

    def tree(self) -> set[tuple[str, str | None]]:
        """Each name with its parent's."""
        names = {span.place.span: span.name for span in self.spans}
        return {(s.name, names.get(s.parent or "", s.parent)) for s in self.spans}

    def one(self, name: str) -> Span:
        (found,) = (span for span in self.spans if span.name == name)
        return found


def test_without_a_collector_nobody_is_told() -> None:
    assert spans_of(Settings(), "stream") is UNTOLD


async def test_without_a_collector_a_stream_keeps_no_span() -> None:
    async with running() as sluice:
        answer = await sluice.stream.post("/v1/streams", json=start_body(), headers=SENT)
        assert (await opened(sluice, answer.headers["stream-id"]))["trace"] == ID
        assert "span" not in await opened(sluice, answer.headers["stream-id"])


async def opened(sluice: Sluice, stream: str) -> dict[str, Any]:
    records = await sluice.services.log.all_records(StreamKey("demo", stream))
    return dict(records[0].body)


async def test_an_answer_is_one_tree_below_its_client_s_span() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        body = start_body("demo?tokens=40&rate=0", max_tokens=99)
        answer = await sluice.stream.post("/v1/streams", json=body, headers=SENT)
    assert answer.status_code == 200
    assert {span.place.trace for span in told.spans} == {ID}
    assert told.tree() == {
        ("POST /v1/streams", PARENT),
        ("open stream", "POST /v1/streams"),
        ("produce", "POST /v1/streams"),
        ("chat demo", "produce"),
    }
    assert told.flushed == len(told.spans)
    request, model, producer = (told.one(n) for n in ("POST /v1/streams", "chat demo", "produce"))
    assert request.role is Role.SERVER
    assert request.attributes["http.response.status_code"] == 200
    assert model.role is Role.CLIENT
    waited_s = model.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert model.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "demo",
        "gen_ai.request.model": "demo",
        "gen_ai.request.max_tokens": 99,
        "gen_ai.response.model": "demo",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 40,
    }
    (first,) = model.events
    assert isinstance(waited_s, float)
    assert first.at_ns - model.began_ns == round(waited_s * 1e9)
    assert producer.attributes["sluice.epoch"] == 1
    assert producer.attributes["sluice.end"] == "finished"
    for span in told.spans:
        assert span.began_ns <= span.ended_ns <= request.ended_ns


async def test_what_a_client_does_not_record_is_not_told() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        headers = UNRECORDED | ASYNC
        answer = await sluice.api.post("/v1/streams", json=start_body(), headers=headers)
        await asyncio.gather(*sluice.productions.tasks)
        assert "span" not in await opened(sluice, answer.json()["id"])
    assert told.spans == []


async def test_who_takes_over_is_in_the_stream_s_trace_and_names_who_noticed() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        with sluice.services.spans.request(ID, SENT):
            started = await begin(sluice.services, age_s=60, chunks=2)
        other = {"traceparent": f"00-{'a' * 32}-{PARENT}-01"}
        path = f"/v1/streams/{started.key.stream}/chunks"
        await sluice.api.get(f"{path}?after=2&wait=1", headers=other)
        await asyncio.gather(*sluice.productions.tasks)
    poll = told.one("GET /v1/streams/{stream}/chunks")
    assert poll.place.trace == "a" * 32
    assert told.one("take over").links == [poll.place]
    assert told.tree() >= {
        ("take over", "request"),
        ("launch", "take over"),
        ("produce", "request"),
        ("chat demo", "produce"),
    }
    assert told.one("produce").place.trace == ID
    assert told.one("produce").attributes["sluice.epoch"] == 2
    assert told.flushed == len(told.spans)


async def test_a_sweep_tells_of_what_it_has_taken_over() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        with sluice.services.spans.request(ID, SENT):
            await begin(sluice.services, age_s=60, chunks=2)
        await sweep(sluice.services, deadline=asyncio.get_running_loop().time() + 30)
        assert told.flushed == len(told.spans) > 0
    assert told.one("take over").links == []


async def test_who_hands_over_says_why() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        sluice.productions.invocation_s = 20.5
        await sluice.launched("demo?tokens=60&rate=40")
        while len(sluice.productions.tasks) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await sluice.productions.tasks[0]
    producer = next(span for span in told.spans if span.name == "produce")
    assert [(event.name, event.attributes) for event in producer.events] == [
        ("leaving", {"sluice.reason": "deadline"})
    ]
    assert producer.attributes["sluice.end"] == "left"


async def test_a_request_is_named_by_its_route_alone() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        await sluice.api.get("/v1/usage?more=hidden")
        await sluice.api.get("/v1/usage?ticket=hidden")
        await sluice.api.get("/v1/secret-text")
        await sluice.api.request("SECRET-TEXT", "/v1/usage")
    strange = told.spans[-1]
    assert [span.name for span in told.spans] == ["GET /v1/usage", "GET", "GET", "HTTP"]
    assert [span.failed for span in told.spans] == [""] * 4
    assert strange.attributes["http.request.method"] == "_OTHER"
    assert "secret" not in repr(told.spans).lower()
    assert "hidden" not in repr(told.spans)


async def test_what_fails_is_told_by_its_kind() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        body = start_body("demo?fail_after=2&rate=0&tokens=30")
        await sluice.stream.post("/v1/streams", json=body)
    assert told.one("chat demo").failed == told.one("produce").failed != ""
    assert told.one("POST /v1/streams").failed == ""


async def test_no_span_holds_a_text_or_who_the_user_is() -> None:
    told = Keeping()
    async with running(spans=Spans(told)) as sluice:
        await sluice.add_key("their-key", user="someone-i-know")
        messages = [{"role": "user", "content": "what-was-asked"}]
        body = {**start_body(), "messages": messages, "metadata": {"title": "what-it-is-about"}}
        headers = {"authorization": "Bearer their-key"}
        answer = await sluice.stream.post("/v1/streams", json=body, headers=headers)
        said = [json.loads(x[6:]) for x in answer.text.splitlines() if x.startswith("data: ")]
    shown = repr(told.spans)
    words = [word for event in said for word in event.get("text", "").split() if len(word) > 6]
    assert words
    for hidden in ("their-key", "someone-i-know", "what-was-asked", "what-it-is-about", *words):
        assert hidden not in shown
