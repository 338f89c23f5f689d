"""Pacing: how many writes an answer costs, and when each may go out."""

import asyncio

import pytest

from shared.pacing import SENTENCE_S_MAX, Pacer, Pacing
from tests.simulation.clock import virtual

SENTENCE_TOKENS = 12


def written_at(pacing: Pacing, *, tokens: int, per_s: float, sentences: bool) -> list[float]:
    """When a producer with this pacing writes, whose model says one token after the other."""
    pacer, held, times = Pacer(pacing), "", []
    for index in range(tokens):
        now = index / per_s
        ends = sentences and index % SENTENCE_TOKENS == SENTENCE_TOKENS - 1
        held += "word. " if ends else "word "
        if now >= pacer.due(held):
            pacer.wrote(now)
            times.append(now)
            held = ""
    return times


@pytest.mark.parametrize("sentences", [True, False])
def test_ten_seconds_at_fifty_tokens_a_second_cost_about_35_writes(sentences: bool) -> None:
    times = written_at(Pacing(), tokens=500, per_s=50, sentences=sentences)
    assert 28 <= len(times) <= 40


@pytest.mark.parametrize("per_s", [5, 20, 50, 200, 1000])
@pytest.mark.parametrize("span", [(50, 400), (100, 100), (0, 1000)])
def test_boundaries_cost_no_more_writes_than_the_intervals_allow(
    span: tuple[int, int], per_s: int
) -> None:
    early = written_at(Pacing(span), tokens=10 * per_s, per_s=per_s, sentences=True)
    # A model whose next token always comes in time makes the most of the intervals.
    allowed = written_at(Pacing(span, boundary="none"), tokens=50_000, per_s=5000, sentences=False)
    assert len(early) <= len(allowed) + 1


def test_the_first_chunk_goes_out_at_once() -> None:
    assert Pacer(Pacing((5000, 5000), 0)).due("word") <= 0


def test_the_interval_grows_during_the_warm_up_and_not_after_it() -> None:
    pacing = Pacing((50, 400), 3000)
    assert [pacing.interval_s(s) for s in (0, 1.5, 3, 60)] == pytest.approx([0.05, 0.225, 0.4, 0.4])
    assert Pacing((50, 400), 0).interval_s(0) == 0.4


def test_without_an_interval_every_token_may_go_out() -> None:
    assert len(written_at(Pacing((0, 0), 0), tokens=100, per_s=1e6, sentences=False)) == 100


@pytest.mark.parametrize(
    "held", ["One. ", "One.\n", "line\n", "“Why?” ", "東京。 ", "```", "```\n", "end…) "]
)
def test_a_natural_boundary_may_end_a_chunk_early(held: str) -> None:
    pacer = Pacer(Pacing((1000, 1000), 0))
    pacer.wrote(0)
    assert pacer.due(held) == 0.5
    assert pacer.due("word ") == 1.0


@pytest.mark.parametrize("held", ["3.14", "word ", "e.g.", "a.b", "`code`", ""])
def test_what_may_go_on_is_no_boundary(held: str) -> None:
    pacer = Pacer(Pacing((1000, 1000), 0))
    pacer.wrote(0)
    assert pacer.due(held) == 1.0


def test_without_boundaries_none_is_looked_for() -> None:
    pacer = Pacer(Pacing((1000, 1000), 0, "none"))
    pacer.wrote(0)
    assert pacer.due("One. ") == 1.0


def test_a_chunk_that_goes_out_early_does_not_bring_the_next_one_forward() -> None:
    pacer = Pacer(Pacing((1000, 1000), 0))
    pacer.wrote(0)
    pacer.wrote(0.5)
    assert pacer.due("word") == 2.0


def test_a_chunk_that_goes_out_late_does_not_hurry_the_next_one() -> None:
    pacer = Pacer(Pacing((1000, 1000), 0))
    pacer.wrote(0)
    pacer.wrote(7)
    assert pacer.due("word") == 8.0


@virtual
async def test_a_first_sentence_is_held_back_until_it_is_whole() -> None:
    pacer = Pacer(Pacing(first_chunk="sentence", boundary="none"))
    assert pacer.due("It flows") > 0
    assert not pacer.at_boundary("It flows")
    assert pacer.at_boundary("It flows. And")
    assert pacer.due("It flows. And") == 0
    pacer.wrote(1.0)
    # From then on as any other.
    assert pacer.due("x") == 1.05


@virtual
async def test_but_not_for_ever() -> None:
    pacer = Pacer(Pacing(first_chunk="sentence"))
    await asyncio.sleep(5)
    assert pacer.due("It") == pacer.due("It flows") == 5 + SENTENCE_S_MAX
