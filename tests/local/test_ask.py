"""`sluice ask`, `follow`, `resume` against a server where everything goes wrong, and by hand."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from local import cli
from tests.clients import hostile
from tests.local.screen import sluice

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def enemy() -> Iterator[str]:
    with hostile.serving() as url:
        yield url


@dataclass
class Scenario:
    """One that no other test has."""

    url: str

    @property
    def report(self) -> Any:
        return httpx.get(f"{self.url}/_report").json()

    @property
    def text(self) -> str:
        return str(self.report["text"])

    def began(self) -> bool:
        return bool(self.report["streams"])


@pytest.fixture
def faces(enemy: str, request: pytest.FixtureRequest) -> Callable[[str], Scenario]:
    label = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return lambda text: Scenario(f"{enemy}/{text},as={label}")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


#: The script has another producer go on.
SEAM = "Another producer goes on; some words may come again.\n"
LOST = "The connection was lost; trying again.\n"


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("pace=0", ""),
        ("cut=137", LOST),
        ("truncated-utf8", LOST),
        ("lost-reply", LOST),
        ("slow=0;bom;crlf;duplicate=3;twice;comment-flood=10;unknown-event;future-fields", ""),
        ("closes=completed,reconnect=2", ""),
    ],
)
def test_the_text_is_whole(
    faces: Callable[[str], Scenario], scenario: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces(scenario)
    code, out, err = run(capsys, "ask", "?", "--url", met.url)
    assert (code, out, err) == (0, met.text, said + SEAM)
    assert met.report["streams_begun"] == 1


def test_what_is_held_back_is_polled(
    faces: Callable[[str], Scenario], capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces("head-only;times=all")
    code, out, err = run(capsys, "ask", "?", "--url", met.url)
    assert (code, out) == (0, met.text)
    assert err == "Streams are held back on the way here: polling instead.\n"


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("status=401;on=start", "The credential has expired."),
        ("closes=failed", "The model's provider cut its answer off."),
        ("closes=cancelled", "the answer was cancelled"),
        ("portal", "is not Sluice"),
    ],
)
def test_a_failure_is_one_line(
    faces: Callable[[str], Scenario], scenario: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces(scenario)
    code, out, err = run(capsys, "ask", "?", "--url", met.url)
    assert code == 1
    assert err.removeprefix(SEAM).startswith("sluice: ")
    assert said in err
    assert err.removeprefix(SEAM).count("\n") == 1
    if scenario.startswith("closes"):
        assert out == met.text  # what it had said is kept


def test_nothing_answers(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "ask", "?", "--url", "http://127.0.0.1:9", "--patience", "1")
    why = "[Errno 111] Connection refused"
    said = f"sluice: nothing answers at http://127.0.0.1:9 ({why})"
    assert (code, err.splitlines()[-1]) == (1, said)


def test_what_was_asked_is_sent(
    enemy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_URL", f"{enemy}/as=env")
    monkeypatch.setenv("SLUICE_KEY", "a key of the environment")
    assert run(capsys, "ask", "?", "--quiet")[0] == 0
    [seen] = httpx.get(f"{enemy}/as=env/_report").json()["requests"]
    assert seen["authorization"] == "Bearer a key of the environment"
    assert run(capsys, "ask", "?", "--key", "typed")[0] == 0
    seen = httpx.get(f"{enemy}/as=env/_report").json()["requests"][-1]
    assert seen["authorization"] == "Bearer typed"
    monkeypatch.setenv("SLUICE_URL", "nowhere")
    code, _, err = run(capsys, "ask", "?")
    assert (code, err) == (1, "sluice: SLUICE_URL: an address like https://example.com is needed\n")


def test_each_event_is_a_line_of_json(
    faces: Callable[[str], Scenario], capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces("cut=300")
    code, out, _ = run(capsys, "ask", "?", "--url", met.url, "--json")
    events = [json.loads(line) for line in out.split("\n") if line]
    assert code == 0
    assert "".join(e["text"] for e in events if e["type"] == "chunk") == met.text
    assert [events[0]["type"], events[-1]["type"]] == ["opened", "closed"]
    assert {"epoch", "reconnecting"} <= {e["type"] for e in events}


def test_an_answer_is_followed_from_an_offset(
    faces: Callable[[str], Scenario], capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces("pace=0")
    run(capsys, "ask", "?", "--url", met.url)
    [stream] = met.report["streams"]
    assert run(capsys, "follow", stream, "--url", met.url)[1] == met.text
    assert run(capsys, "follow", stream, "--after", "14", "--url", met.url)[1] == " end"


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "local.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what a buffer has read ahead, communicate() would lose
        cwd=ROOT,
    )


def last_line(err: bytes) -> str:
    return err.decode().splitlines()[-1]


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_without_a_terminal_ctrl_c_pauses_and_says_how_it_goes_on(
    faces: Callable[[str], Scenario],
) -> None:
    met = faces("pace=400")
    asking = started("ask", "?", "--url", met.url)
    assert asking.stdout
    first = asking.stdout.read(1)
    asking.send_signal(signal.SIGINT)
    rest, err = asking.communicate(timeout=30)
    [stream] = met.report["streams"]
    assert asking.returncode == 130
    assert last_line(err).startswith(f"Paused. It goes on with: sluice resume {stream} --after ")
    assert not met.report["closed"]
    command = last_line(err).rpartition("sluice ")[2].split()
    resumed = started(*command, "--url", met.url)
    last, _ = resumed.communicate(timeout=30)
    assert resumed.returncode == 0
    assert (first + rest + last).decode() == met.text


def test_who_follows_only_stops_looking(faces: Callable[[str], Scenario]) -> None:
    met = faces("pace=400")
    asking = started("ask", "?", "--url", met.url)
    until(met.began)
    [stream] = met.report["streams"]
    following = started("follow", stream, "--url", met.url)
    assert following.stdout
    assert following.stdout.read(1)
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=30)
    assert following.returncode == 130
    rest = f"It goes on. The rest of it: sluice follow {stream} --after "
    assert last_line(err).startswith(rest)
    out, _ = asking.communicate(timeout=30)
    assert (asking.returncode, out.decode()) == (0, met.text)


def test_of_a_paused_answer_nobody_is_told_that_it_goes_on(
    faces: Callable[[str], Scenario], capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces("pace=400")
    asking = started("ask", "?", "--url", met.url)
    assert asking.stdout
    asking.stdout.read(1)
    [stream] = met.report["streams"]
    run(capsys, "pause", stream, "--url", met.url)
    following = started("follow", stream, "--url", met.url)
    assert following.stderr
    said = following.stderr.readline()
    assert said == b"The answer is paused (requested); it goes on when resumed.\n"
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=30)
    asking.kill()
    asking.communicate()
    rest = f"It is paused. The rest of it: sluice follow {stream} --after "
    assert last_line(err).startswith(rest)


def test_an_answer_that_nobody_reads_is_cancelled(faces: Callable[[str], Scenario]) -> None:
    met = faces("pace=100")
    asking = started("ask", "?", "--url", met.url)
    assert asking.stdout
    asking.stdout.read(1)
    asking.stdout.close()
    asking.stdout = None
    _, err = asking.communicate(timeout=30)
    assert (asking.returncode, err) == (1, b"")
    assert [seen["route"] for seen in met.report["requests"]] == ["start", "cancel"]


def test_in_a_terminal_enter_goes_on_and_ctrl_c_twice_cancels(
    faces: Callable[[str], Scenario],
) -> None:
    met = faces("pace=200;chunks=24")
    with sluice("ask", "?", "--url", met.url, env={"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.until(lambda: "Grüße" in terminal.screen.text)
        terminal.type("\x03")
        terminal.until(lambda: "Enter goes on, Ctrl-C again cancels." in terminal.screen.text)
        assert "Grüße" in terminal.screen.text
        terminal.type("\r")
        terminal.until(lambda: "not JSON" in terminal.screen.text)
        assert "Paused" not in terminal.screen.text
        terminal.type("\x03")
        terminal.until(lambda: "Enter goes on" in terminal.screen.text)
        terminal.type("\x03")
        assert terminal.end() == 130
        shown = terminal.screen.text
    assert shown.endswith("Cancelled.")
    assert "^C" not in shown
    assert shown.count("Grüße") == 1
    routes = [seen["route"] for seen in met.report["requests"]]
    assert [route for route in routes if route != "events"] == [
        *("start", "pause", "resume", "pause", "cancel"),
    ]


def test_who_waits_is_told_for_what(faces: Callable[[str], Scenario]) -> None:
    met = faces("pace=200;chunks=24,status=503;on=pause;retry-after=2")
    with sluice("ask", "?", "--url", met.url, env={"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.until(lambda: "Grüße" in terminal.screen.text)
        terminal.type("\x03")
        terminal.until(lambda: "; trying again." in terminal.screen.text)
        terminal.until(lambda: "Pausing. Ctrl-C again cancels." in terminal.screen.text)
        terminal.until(lambda: "Enter goes on" in terminal.screen.text)
        terminal.type("\x04")
        assert terminal.end() == 130
        assert "It stays paused." in terminal.screen.text


def test_who_does_not_want_to_wait_is_told_how_to_end_it(faces: Callable[[str], Scenario]) -> None:
    met = faces("pace=200;chunks=24,stall=60;on=pause+cancel;times=all")
    with sluice("ask", "?", "--url", met.url, env={"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.until(lambda: "Grüße" in terminal.screen.text)
        for said in ("Pausing. Ctrl-C again cancels.", "Cancelling. Ctrl-C again leaves it"):
            terminal.type("\x03")
            terminal.until(lambda said=said: said in terminal.screen.text)  # type: ignore[misc]
        terminal.type("\x03")
        assert terminal.end() == 130
        [stream] = met.report["streams"]
        words = terminal.screen.text.replace("\n", "")
        assert f"Nobody knows whether it was cancelled: sluice cancel {stream} --url" in words


def test_a_call_that_is_made_again_is_told(
    faces: Callable[[str], Scenario], capsys: pytest.CaptureFixture[str]
) -> None:
    met = faces("pace=100,lost-reply;on=cancel;times=2")
    run(capsys, "ask", "?", "--url", met.url)
    [stream] = met.report["streams"]
    assert run(capsys, "cancel", stream, "--url", met.url)[2] == (
        f"{LOST}It was over already: completed.\n"
    )


def test_keys_are_not_shown_where_the_text_is_plain(faces: Callable[[str], Scenario]) -> None:
    met = faces("pace=200;chunks=24")
    env = {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    with sluice("ask", "?", "--url", met.url, env=env) as terminal:
        terminal.until(lambda: "Grüße" in terminal.screen.text)
        terminal.type("x\r\x03")
        terminal.until(lambda: "Enter goes on" in terminal.screen.text)
        assert met.report["requests"][-1]["route"] == "pause"  # that key came before the question
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "^C" not in terminal.raw
        assert "x\r" not in terminal.raw


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_plain_text_where_no_other_is_wanted(
    faces: Callable[[str], Scenario], env: dict[str, str]
) -> None:
    met = faces("pace=0")
    plain = [] if env else ["--plain"]
    env = {"PYTHONPATH": str(ROOT), **env}
    with sluice(
        "ask", "?", "--quiet", *plain, "--url", met.url, env=env, size=(400, 50)
    ) as terminal:
        assert terminal.end() == 0
        shown, raw = terminal.screen.text, terminal.raw
    assert shown.split() == met.text.replace("\x85", "").split()
    assert "\x1b" not in raw
