"""The hostile server does what its language says: seen by a client that does nothing by itself."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.dialects import native
from tests.clients import hostile
from tests.clients.hostile.language import WORDS, parse

BODY = {"model": "demo", "messages": [{"role": "user", "content": "?"}]}
HEADERS = {"Authorization": "Bearer demo"}
EVENT = re.compile(r"(?:^id: (\d+)\n)?^event: (\w+)\n^data: (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with hostile.serving() as url:
        yield url


@pytest.fixture
def client(url: str, request: pytest.FixtureRequest) -> Iterator["Client"]:
    with httpx.Client(timeout=20, headers=HEADERS) as http:
        yield Client(http, url, request.node.name.replace("/", "%2F"))


class Client:
    """Speaks to one scenario, that no other test has."""

    def __init__(self, http: httpx.Client, url: str, label: str) -> None:
        self._http = http
        self._url = url
        self._label = label
        self._at = ""

    def faces(self, scenario: str) -> "Client":
        self._at = f"{self._url}/{scenario},as={self._label}"
        return self

    def start(self, key: str = "a", body: Any = BODY, **headers: str) -> httpx.Response:
        headers |= {"Idempotency-Key": key}
        return self._http.post(f"{self._at}/v1/streams", json=body, headers=headers)

    def begin(self) -> str:
        """A stream that nobody waits for; its path."""
        return str(self.start(prefer="respond-async").headers["location"])

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self._http.get(f"{self._at}{path}", headers=headers)

    def post(self, path: str) -> httpx.Response:
        return self._http.post(f"{self._at}{path}")

    def bytes_of(self, path: str) -> tuple[bytes, str]:
        """What arrives of a response's body, and how it ends."""
        data = b""
        try:
            with self._http.stream("GET", f"{self._at}{path}") as response:
                for piece in response.iter_raw():
                    data += piece
        except httpx.TransportError as error:
            return data, type(error).__name__
        return data, ""

    def report(self) -> Any:
        return self._http.get(f"{self._at}/_report").json()


def text(events: str) -> str:
    return "".join(json.loads(d)["text"] for _, e, d in EVENT.findall(events) if e == "chunk")


def ids(events: str) -> list[int]:
    return [int(seq) for seq, _, _ in EVENT.findall(events) if seq]


def test_without_a_rule_all_is_well(client: Client) -> None:
    response = client.faces("pace=1").start()
    assert response.headers["content-type"] == native.EVENT_STREAM_HEADERS["content-type"]
    report = client.report()
    assert text(response.text) == report["text"]
    assert report["requests"][0]["ended"] == "whole"
    assert report["requests"][0]["sent"] == len(response.content)
    events = client.get(f"{response.headers['location']}?after={ids(response.text)[-1]}")
    assert events.status_code == 204


def test_what_was_seen_is_not_sent_again(client: Client) -> None:
    path = client.faces("pace=0").begin()
    events = client.get(f"{path}/events", **{"last-event-id": "4"}).text
    assert ids(events) == [5, 6, 8, *range(9, 17)]


def test_pages_hold_all_of_the_text(client: Client) -> None:
    path, after, found = client.faces("pace=5;page=2").begin(), -1, ""
    while True:
        page = client.get(f"{path}/chunks?after={after}&limit=3&wait=5").json()
        found += "".join(chunk["text"] for chunk in page["chunks"])
        after = page["next"]
        if page["closed"]:
            break
    assert found == client.report()["text"]
    assert client.get(path).json()["status"] == page["status"] == "completed"


def test_a_key_begins_one_stream_and_its_loss_another(client: Client) -> None:
    client.faces("lost-reply")
    with pytest.raises(httpx.ReadError):
        client.start()
    assert client.report()["streams_begun"] == 1
    client.start()
    assert client.report()["streams_begun"] == 1
    client.start("b")
    assert client.report()["streams_begun"] == 2


def test_what_is_refused_begins_nothing(client: Client) -> None:
    client.faces("refuse,status=503;retry-after=7,status=502,status=200;portal")
    with pytest.raises(httpx.ReadError):
        client.start()
    busy = client.start()
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "7")
    assert busy.json()["type"] == "urn:sluice:problem:unavailable"
    gateway, portal = client.start(), client.start()
    assert (gateway.status_code, gateway.headers["content-type"]) == (502, "text/html")
    assert "log in" in portal.text
    assert client.report()["streams_begun"] == 0
    assert client.start().status_code == 200


@pytest.mark.parametrize(
    ("how", "ends"), [("cut", "ReadError"), ("fin", "RemoteProtocolError"), ("end", "")]
)
def test_a_response_breaks_off_behind_any_byte(client: Client, how: str, ends: str) -> None:
    for count in (0, 1, 100, 137, 138, 700):
        path = client.faces(f"{how}={count};on=events").begin()
        data, ended = client.bytes_of(f"{path}/events")
        assert len(data) == count
        assert ended == ends
        assert client.report()["requests"][-1]["sent"] == count
    path = client.faces(f"{how}=100000;on=events").begin()
    assert client.bytes_of(f"{path}/events")[1] == ""


def test_a_cut_comes_at_its_byte_though_nothing_follows_it(client: Client) -> None:
    path = client.faces("no-end;cut=5;slow=0;on=events").begin()
    assert client.bytes_of(f"{path}/events") == (b"retry", "ReadError")


def test_a_cut_within_a_character(client: Client) -> None:
    path = client.faces("truncated-utf8;on=events").begin()
    data, ended = client.bytes_of(f"{path}/events")
    assert (data[-1:], ended) == ("ü".encode()[:1], "ReadError")


def test_rules_are_taken_in_their_order_and_only_on_their_routes(client: Client) -> None:
    path = client.faces("status=500;on=chunks;skip=1;times=2,status=204;on=events").begin()
    polls = [client.get(f"{path}/chunks").status_code for _ in range(4)]
    assert polls == [200, 500, 500, 200]
    assert [client.get(f"{path}/events").status_code for _ in range(2)] == [204, 200]
    rules = [seen["rule"] for seen in client.report()["requests"]]
    assert [rule.partition(";")[0] for rule in rules[-4:]] == ["status=500", "", "status=204", ""]


def test_silence_and_then_the_rest(client: Client) -> None:
    began = time.monotonic()
    response = client.faces("stall=0.3;at=137").start()
    assert time.monotonic() - began >= 0.3
    assert text(response.text) == client.report()["text"]


@pytest.mark.parametrize("scenario", ["head-only", "stall=600;at=20", "no-end=10"])
def test_who_leaves_is_told_of(client: Client, scenario: str) -> None:
    path = client.faces(f"{scenario};on=events").begin()
    with client._http.stream("GET", f"{client._at}{path}/events") as response:
        assert response.status_code == 200
        assert client.report()["requests"][-1]["ended"] == "under way"
    give_up = time.monotonic() + 10
    while client.report()["requests"][-1]["ended"] != "left":
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_proxy_that_buffers_shows_nothing_before_the_end(client: Client) -> None:
    path = client.faces("pace=20;buffer;on=events").begin()
    with client._http.stream("GET", f"{client._at}{path}/events") as response:
        assert client.report()["closed"]
        assert text(response.read().decode()) == client.report()["text"]


def test_one_that_does_not_has_it_at_once(client: Client) -> None:
    path = client.faces("pace=1000").begin()
    with client._http.stream("GET", f"{client._at}{path}/events"):
        assert not client.report()["closed"]


def test_repetition(client: Client) -> None:
    path = client.faces("duplicate=3;twice;on=events").begin()
    events = client.get(f"{path}/events?after=12").text
    assert ids(events) == [n for n in range(10, 17) for _ in range(2)]
    path = client.faces("duplicate=3;twice;on=chunks").begin()
    page = client.get(f"{path}/chunks?after=12").json()
    assert [chunk["seq"] for chunk in page["chunks"]] == [n for n in range(10, 16) for _ in "12"]


def test_other_bytes_for_the_same_events(client: Client) -> None:
    for scenario, sign in (
        ("crlf", b"\r\n\r\n"),
        ("cr", b"\r\r"),
        ("bom", b"\xef\xbb\xbfretry"),
        ("comment-flood=50", b": flood\n" * 50 + b"id: 1\n"),
        ("slow=0", b"\n\n"),
    ):
        path = client.faces(f"{scenario};on=events").begin()
        data, _ = client.bytes_of(f"{path}/events")
        assert sign in data
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        assert text(lines) == client.report()["text"]


def test_what_nobody_knows_yet(client: Client) -> None:
    path = client.faces("unknown-event;future-fields;on=any;times=all").begin()
    events = client.get(f"{path}/events").text
    assert "id: 3\nevent: surprise\n" in events
    assert "\n\nevent: surprise\n" in events
    assert text(events) == client.report()["text"]
    assert "from_the_future" in client.get(path).json()
    assert "from_the_future" in client.get(f"{path}/chunks").json()


def test_wrong_heads(client: Client) -> None:
    client.faces("type=html,gzip-garbage,empty")
    assert client.start().headers["content-type"] == "text/html; charset=utf-8"
    with pytest.raises(httpx.DecodingError):
        client.start()
    empty = client.start()
    assert (empty.status_code, empty.content) == (200, b"")
    assert empty.headers["content-type"].startswith("text/event-stream")


def test_a_stream_is_steered(client: Client) -> None:
    path = client.faces("pace=60").begin()
    paused = client.post(f"{path}/pause")
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    events = client.get(f"{path}/events").text
    assert "event: paused" in events
    assert events.endswith(f'event: reconnect\ndata: {{"after":{ids(events)[-1]}}}\n\n')
    assert client.post(f"{path}/resume").json()["status"] == "open"
    assert "event: closed" in client.get(f"{path}/events?after={ids(events)[-1]}").text
    assert text(client.get(f"{path}/events").text) == client.report()["text"]


def test_a_cancel_ends_it(client: Client) -> None:
    path = client.faces("pace=1000").begin()
    assert client.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert client.get(f"{path}/events").text.count('"finish_reason":"cancelled"') == 1


def test_a_start_cancels_its_parent(client: Client) -> None:
    path = client.faces("pace=1000").begin()
    child = {**BODY, "parent": path.rpartition("/")[2]}
    assert client.start(key="b", body=child, prefer="respond-async").status_code == 202
    assert client.get(path).json()["status"] == "cancelled"
    assert client.report()["streams_begun"] == 2


def test_where_its_credential_ends_it_waits_for_a_grant(client: Client) -> None:
    path = client.faces("expires=3").begin()
    page = client.get(f"{path}/chunks").json()
    assert (page["status"], page["reason"], len(page["chunks"])) == ("paused", "expired", 3)
    assert client.post(f"{path}/grant").status_code == 200
    assert text(client.get(f"{path}/events").text) == client.report()["text"]


def test_what_a_log_is_like(client: Client) -> None:
    response = client.faces("chunks=3,big-event=100000,closes=failed,expiring,reconnect=2").start()
    assert ids(response.text) == [0, 1]
    events = client.get(response.headers["location"]).text
    assert "event: expiring" in events
    assert len(text(events)) > 100_000
    assert text(events) == client.report()["text"]
    assert '"status":"failed"' in events


def test_a_page_of_any_origin_may_ask(client: Client) -> None:
    client.faces("status=503")
    assert client.start(origin="https://a.test").headers["access-control-allow-origin"] == "*"
    asked = httpx.options(f"{client._at}/v1/streams", headers={"Origin": "https://a.test"})
    assert "authorization" in asked.headers["access-control-allow-headers"]


def test_no_credential(url: str) -> None:
    assert httpx.post(f"{url}/as=nobody/v1/streams", json=BODY).status_code == 401


@pytest.mark.parametrize("text", ["cutt=1", "cut=1;on=evnts", "", "cut=1,"])
def test_a_typo_is_no_scenario(url: str, text: str) -> None:
    with pytest.raises(ValueError, match="hostile"):
        parse(text)
    assert httpx.get(f"{url}/{text}/v1/streams/x").status_code == 400


def test_every_word_is_tried_here() -> None:
    here = Path(__file__).read_text()
    assert [word for word in WORDS if not re.search(rf'[",;({{]{word}[=;,")]', here)] == []


@pytest.mark.parametrize("how", ["stdin", "SIGTERM"])
def test_a_process_of_its_own(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clients.hostile"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    with process:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/as=it/_report").json()["streams_begun"] == 0
        if how == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
