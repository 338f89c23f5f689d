"""A producer of the local run, killed in mid-answer by who looks at the page."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.e2e.local_run import LocalRun, body

pytestmark = pytest.mark.e2e

MODEL = "demo?tokens=150&rate=40"


def events(run: LocalRun, method: str, path: str, **more: object) -> Iterator[ServerSentEvent]:
    with connect_sse(run.client, method, path, **more) as source:
        yield from source.iter_sse()


def until_chunks(found: Iterator[ServerSentEvent], count: int) -> str:
    """Read so many chunks; the stream's id."""
    stream = str(next(found).json()["id"])
    for _ in range(count):
        assert next(found).event == "chunk"
    return stream


def kill(run: LocalRun, stream: str, key: str = "demo") -> int:
    headers = {"authorization": f"Bearer {key}"}
    return run.client.post(f"/local/streams/{stream}/kill", headers=headers).status_code


def test_who_is_attached_is_cut_off_and_the_answer_is_taken_over(run: LocalRun) -> None:
    attached = events(run, "POST", "/v1/streams", json=body(MODEL))
    stream = until_chunks(attached, 5)
    with ThreadPoolExecutor(1) as pool:
        # Another client, elsewhere: its connection stays, and it is who notices.
        following = pool.submit(list, events(run, "GET", f"/v1/streams/{stream}/events"))
        assert kill(run, stream) == 204
        dead_at = time.time() * 1000
        with pytest.raises(httpx.RemoteProtocolError):
            list(attached)
        assert kill(run, stream) == 404  # nobody produces it now
        seen = following.result(60)
    told = [(event.event, event.json()) for event in seen]
    [(_, successor)] = [each for each in told if each[0] == "epoch"]
    assert successor["epoch"] == 2
    assert seen[-1].json()["status"] == "completed"
    # What it had not written is not in the log, and nothing says that it left.
    records = run.client.get(f"/v1/streams/{stream}/export").json()["streams"][0]["records"]
    [vacant] = [record for record in records if record["kind"] == "vacant"]
    assert vacant["body"]["reason"] == "lost"
    of_the_dead = [r for r in records if r["epoch"] == 1 and r["kind"] == "text"]
    assert of_the_dead[-1]["at"] <= dead_at
    # No word is lost, and none is there twice.
    other = run.begin(MODEL)
    list(events(run, "GET", f"/v1/streams/{other}/events"))
    assert run.text(stream) == run.text(other)


def test_a_producer_that_was_launched(run: LocalRun) -> None:
    stream = run.begin(MODEL)
    follower = events(run, "GET", f"/v1/streams/{stream}/events")
    assert next(follower).event == "opened"
    while next(follower).event != "chunk":
        pass
    assert kill(run, stream) == 204
    names = [event.event for event in follower]
    assert names.count("epoch") == 1  # and one before, of who was launched first
    assert names[-1] == "closed"


def test_what_cannot_be_killed(run: LocalRun) -> None:
    stream = run.begin("demo?tokens=5&rate=0")
    list(events(run, "GET", f"/v1/streams/{stream}/events"))
    assert kill(run, stream) == 404
    assert kill(run, "nothing") == 404
    assert kill(run, stream, "wrong") == 401
