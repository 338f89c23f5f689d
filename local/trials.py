"""The trials of `sluice smoke`: what a deployment must do, tried over HTTP as a client would."""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from functions.wiring import Services
from local.where import Place
from shared.authority import Caller
from shared.log import DEAD_AFTER_S, VACANT_S
from shared.models import Message
from shared.records import StreamKey
from shared.settings import Settings
from shared.starting import Start

#: What the tenant of a smoke test may do in a minute: few, so that one trial can exceed it.
STARTS_A_MINUTE = 40
#: The page that may call for it, and one that may not.
ORIGIN, FOREIGN = "https://smoke.sluice.example", "https://elsewhere.example"
QUICK_S = 5.0
#: Chunks that came within so many s of each other came together.
APART_S = 0.05


class Miss(Exception):
    """It does not do what it must; the text says what was seen instead."""


class NotTried(Exception):
    """What is needed for it is not here; the text says what."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event, and when it came, in s from the request on."""

    at_s: float
    event: str
    data: Any
    seq: int


@dataclass
class Site:
    """A deployment, reached with `key`. `place` is its store, where that can be reached; then the
    key is of a tenant with limits and the origin of a page of its own.
    """

    stream: httpx.Client
    api: httpx.Client
    key: str
    place: Place | None = None
    origin: str = ""
    #: An answer that is over, for trials that only read.
    over: str = ""
    text: str = ""
    seqs: list[int] = field(default_factory=list)

    def start(self, model: str, **headers: str) -> Iterator[Seen]:
        body = _body(model)
        began = time.monotonic()
        with self.stream.stream("POST", "/v1/streams", json=body, headers=headers) as response:
            yield from _events(response, began)

    def follow(self, stream: str, after: int = -1) -> Iterator[Seen]:
        path = f"/v1/streams/{stream}/events"
        began = time.monotonic()
        with self.stream.stream("GET", path, params={"after": after}) as response:
            yield from _events(response, began)

    def begin(self, model: str, **headers: str) -> str:
        """A stream that nobody waits for; its id."""
        answer = self.api.post(
            "/v1/streams", json=_body(model), headers={"prefer": "respond-async", **headers}
        )
        _expect(answer, 202)
        return str(answer.json()["id"])

    def poll(self, stream: str, *, until_s: float = 60.0) -> tuple[str, dict[str, Any]]:
        """The whole text, by polls, and the last page."""
        text, after, give_up = "", -1, time.monotonic() + until_s
        while True:
            query = {"after": after, "wait": 5}
            answer = self.api.get(f"/v1/streams/{stream}/chunks", params=query)
            _expect(answer, 200)
            page = answer.json()
            text += "".join(chunk["text"] for chunk in page["chunks"])
            after = page["next"]
            if page["closed"]:
                return text, page
            if time.monotonic() > give_up:
                raise Miss(f"after {until_s:.0f} s of polls it is still {page['status']}")

    def control(self, stream: str, what: str) -> dict[str, Any]:
        answer = self.api.post(f"/v1/streams/{stream}/{what}")
        _expect(answer, 200, 202)
        found: dict[str, Any] = answer.json()
        return found


Trial = Callable[[Site], str]


def healthy(site: Site) -> str:
    versions = set()
    for client in (site.stream, site.api):
        answer = client.get("/healthz")
        _expect(answer, 200)
        versions.add(answer.json()["version"])
    if len(versions) > 1:
        raise Miss(f"the two addresses are of different versions: {', '.join(sorted(versions))}")
    return f"version {versions.pop()}"


def strangers_are_refused(site: Site) -> str:
    url = site.api.base_url.join("v1/streams")
    for headers in ({"authorization": "Bearer nobody"}, {}):
        _expect(httpx.get(url, headers=headers, timeout=QUICK_S), 401)
    _expect(site.api.get(f"/v1/streams/{'0' * 32}"), 404)
    return "401 without a key, 404 for what is not there"


def streams_bit_by_bit(site: Site) -> str:
    """Three seconds of an answer come over three seconds, and not at its end."""
    seen = [*site.start("demo?tokens=60&rate=20&ttft=200")]
    chunks = [one for one in seen if one.event == "chunk"]
    site.over, site.text = seen[0].data["id"], "".join(one.data["text"] for one in chunks)
    site.seqs = [one.seq for one in chunks]
    _closed(seen, "completed")
    moments = 1 + sum(b.at_s - a.at_s > APART_S for a, b in pairwise(chunks))
    first, last = chunks[0].at_s, chunks[-1].at_s
    if moments < 5 or last - first < 1.5:
        raise Miss(f"{len(chunks)} chunks at {moments} moments, from {first:.1f} to {last:.1f} s")
    return f"{len(chunks)} chunks at {moments} moments: first {first:.2f} s, last {last:.2f} s"


def resumes(site: Site) -> str:
    after = site.seqs[len(site.seqs) // 2]
    rest = [one.seq for one in site.follow(site.over, after) if one.event == "chunk"]
    if rest != [seq for seq in site.seqs if seq > after]:
        raise Miss(f"after {after} came {rest}")
    return f"{len(rest)} chunks after {after}, none missing, none twice"


def ends_with_nothing(site: Site) -> str:
    """Whoever has seen the end gets an empty answer, which does not hang."""
    last = site.api.get(f"/v1/streams/{site.over}").json()["last_seq"]
    began = time.monotonic()
    path = f"/v1/streams/{site.over}/events"
    answer = site.stream.get(path, params={"after": last}, timeout=QUICK_S)
    _expect(answer, 204)
    return f"204 after {time.monotonic() - began:.2f} s"


def polls(site: Site) -> str:
    text, _ = site.poll(site.over)
    if text != site.text:
        raise Miss(f"polls brought {len(text)} characters, the stream {len(site.text)}")
    stream = site.begin("demo?tokens=40&rate=40")
    text, page = site.poll(stream)
    if page["status"] != "completed" or page["usage"]["output_tokens"] != 40:
        raise Miss(f"an answer started to be polled ended as {page['status']}")
    return f"the same {len(site.text)} characters; an asynchronous start, too"


def starts_once(site: Site) -> str:
    key = {"idempotency-key": secrets.token_hex(8)}
    first, second = (site.begin("demo?tokens=5&rate=50", **key) for _ in range(2))
    if first != second:
        raise Miss("the same Idempotency-Key began two streams")
    return "one stream for two requests"


def cancels(site: Site) -> str:
    stream = site.begin("demo?tokens=2000&rate=20")
    site.control(stream, "cancel")
    seen = [*site.follow(stream)]
    _closed(seen, "cancelled")
    return f"closed as cancelled {seen[-1].at_s:.1f} s later"


def pauses(site: Site) -> str:
    stream = site.begin("demo?tokens=100&rate=25")
    for one in site.follow(stream):
        if one.event == "chunk":
            break
    site.control(stream, "pause")
    status = site.api.get(f"/v1/streams/{stream}").json()["status"]
    if status != "paused":
        raise Miss(f"after the pause it is {status}")
    site.control(stream, "resume")
    _, page = site.poll(stream)
    if page["status"] != "completed":
        raise Miss(f"after the resume it ended as {page['status']}")
    return "paused, resumed, completed"


def outlives_its_client(site: Site) -> str:
    stream = ""
    for one in site.start("demo?tokens=80&rate=20"):
        stream = stream or one.data["id"]
        if one.event == "chunk":
            break  # and the connection goes
    _, page = site.poll(stream)
    if page["status"] != "completed" or page["usage"]["output_tokens"] != 80:
        raise Miss(f"its client left, and it ended as {page['status']}")
    return "the client left after the first chunk, the answer went on to its end"


def breaks_silence(site: Site) -> str:
    """A model that is silent for 20 s: proxies and clients are kept from giving up."""
    body = _body("demo?tokens=10&rate=50&silence_after=5&silence=20")
    with site.stream.stream("POST", "/v1/streams", json=body) as response:
        _expect(response, 200)
        began, heard, last = time.monotonic(), [], 0.0
        for line in response.iter_lines():
            now = time.monotonic() - began
            if line.startswith(":"):
                heard.append(now)
            last = max(last, now)
    if not heard:
        raise Miss("nothing came in 20 s of silence")
    return f"a comment line after {heard[0]:.0f} s"


def limits(site: Site) -> str:
    _need_place(site, "a tenant with limits of its own")
    for _ in range(2 * STARTS_A_MINUTE):  # a slow account fills up again meanwhile
        headers = {"prefer": "respond-async"}
        answer = site.api.post("/v1/streams", json=_body("demo?tokens=1"), headers=headers)
        if answer.status_code == 429:
            if "retry-after" not in answer.headers:
                raise Miss("a 429 without Retry-After")
            return (
                f"429 by {answer.json()['policy']}, come again in {answer.headers['retry-after']} s"
            )
        _expect(answer, 202)
    raise Miss(f"{STARTS_A_MINUTE} starts a minute are allowed, and twice as many passed")


def pages_may_call(site: Site) -> str:
    """Origins: the page's own, and none that nobody lists."""
    for client in (site.stream, site.api):
        asked = {"access-control-request-method": "POST", "origin": FOREIGN}
        if "access-control-allow-origin" in client.options("/v1/streams", headers=asked).headers:
            raise Miss("a page of any origin may call")
        if site.origin:
            answer = client.options("/v1/streams", headers={**asked, "origin": site.origin})
            if answer.headers.get("access-control-allow-origin") != site.origin:
                raise Miss(f"{site.origin} may not call: {answer.status_code}")
    return "its own origin may, others may not" if site.origin else "other origins may not"


def is_taken_over(site: Site) -> str:
    """A stream whose producer is dead: its record is as a killed function leaves it."""
    place = _need_place(site, "the store, to leave a stream there as a dead producer does")
    stream = asyncio.run(_dead(place, site.key))
    seen, give_up = list[Seen](), time.monotonic() + DEAD_AFTER_S + VACANT_S
    while not (seen and seen[-1].event == "closed") and time.monotonic() < give_up:
        seen += (one for one in site.follow(stream, _last(seen)) if one.event != "reconnect")
    _closed(seen, "completed")
    epoch = max((one.data["epoch"] for one in seen if one.event == "epoch"), default=1)
    if epoch < 2:
        raise Miss("it was completed, and nobody took it over")
    return "another producer went on, to the end"


async def _dead(place: Place, key: str) -> str:
    """A stream that was begun too long ago, by somebody who wrote nothing since."""
    services = Services.on(
        place.store, Settings(), now=lambda: time.time() - DEAD_AFTER_S - 5, launch=_nobody
    )
    identity = await services.authority.identify(key)
    caller = Caller(identity, await services.authority.tenant(identity))
    start = Start("demo?tokens=30&rate=50", (Message("user", "Hello"),))
    return (await services.starting.start(caller, start, epoch=1)).key.stream


async def _nobody(key: StreamKey) -> None:
    """Has no stream produced."""


#: In the order of a first look: what all else needs comes first, what uses up the limits last.
TRIALS: Mapping[str, Trial] = {
    "it is there": healthy,
    "strangers are refused": strangers_are_refused,
    "an answer streams bit by bit": streams_bit_by_bit,
    "it resumes": resumes,
    "after the end comes nothing": ends_with_nothing,
    "it is polled": polls,
    "a repeated start starts once": starts_once,
    "a cancel cancels": cancels,
    "a pause pauses, a resume resumes": pauses,
    "an answer outlives its client": outlives_its_client,
    "an answer outlives its producer": is_taken_over,
    "silence is broken": breaks_silence,
    "pages may call": pages_may_call,
    "limits hold": limits,
}


def _need_place(site: Site, what: str) -> Place:
    if site.place is None:
        raise NotTried(f"needs {what}: --stack or --db")
    return site.place


def _body(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


def _events(response: httpx.Response, began: float) -> Iterator[Seen]:
    _expect(response, 200)
    try:
        for event in EventSource(response).iter_sse():
            seq = int(event.id) if event.event != "reconnect" else -1
            yield Seen(time.monotonic() - began, event.event, json.loads(event.data), seq)
    except (SSEError, ValueError) as error:
        raise Miss(f"what comes is no event stream: {error}") from error


def _expect(answer: httpx.Response, *statuses: int) -> None:
    if answer.status_code not in statuses:
        answer.read()
        wanted = " or ".join(map(str, statuses))
        where = f"{answer.request.method} {answer.request.url.path}"
        raise Miss(f"{where}: {answer.status_code} instead of {wanted}: {answer.text[:200]}")


def _closed(seen: Sequence[Seen], status: str) -> None:
    if not seen or seen[-1].event != "closed":
        raise Miss(f"it broke off after {len(seen)} events")
    if seen[-1].data["status"] != status:
        raise Miss(f"it ended as {seen[-1].data['status']}: {seen[-1].data['error']}")


def _last(seen: Sequence[Seen]) -> int:
    return seen[-1].seq if seen else -1
