"""The reception of an answer, on clocks that are told what time it is."""

from shared.log import Log
from shared.reception import Reception
from shared.records import Kind, Record
from tests.model_store import ModelStore


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def record(at_ms: int) -> Record:
    return Record(1, Kind.TEXT, 1, at_ms, "x", text="x")


def reception(clock: Clock, after: int = -1) -> Reception:
    return Reception(Log(ModelStore(), now=clock), after)


def test_the_lag_is_that_of_what_came_meanwhile() -> None:
    clock = Clock()
    it = reception(clock)
    clock.now_s = 1002.0
    it.sent([record(999_000), record(1_001_900), record(1_001_960)])
    # A writer's clock that is ahead.
    it.sent([record(1_005_000)])
    it.over(left=False, ended=True)
    figures = it.figures()
    assert (figures["LagP50"], figures["LagMax"]) == (40, 100)
    assert figures["ConnectionTime"] == 2000


def test_who_leaves_before_the_end_is_interrupted() -> None:
    for left, ended, interrupted in ((True, False, 1), (True, True, 0), (False, False, 0)):
        it = reception(Clock())
        it.over(left=left, ended=ended)
        assert it.figures()["Interrupted"] == interrupted
        assert "LagMax" not in it.figures()


def test_who_has_seen_something_resumes() -> None:
    assert [reception(Clock(), after).figures()["Resumed"] for after in (-1, 0, 7)] == [0, 1, 1]
