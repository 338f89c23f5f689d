"""Every way through small cases keeps every promise, and finds what is planted."""

from dataclasses import replace

import pytest

from tests.simulation.cases import CASES
from tests.simulation.exhaustive import explore
from tests.simulation.mutants import MUTANTS

# Thousands of runs of what other tests cover: counted, each would take twice as long.
pytestmark = pytest.mark.no_cover

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_way_keeps_every_promise(name: str) -> None:
    case = BY_NAME[name]
    found = explore(case)
    print(f"{found} with {case.bounds}")
    assert not found.wrong


@pytest.mark.parametrize(
    ("mutant", "name"),
    [
        ("ignores_its_successor", "two producers"),
        ("does_not_know_its_own_write", "two producers"),
        ("overlooks_a_late_write", "two producers that replay"),
        ("ignores_a_cancel", "a producer that is stopped, a canceller"),
        ("settles_with_each_try", "two producers"),
        ("takes_what_another_has_taken", "two starts, room for one"),
        ("launches_without_the_slot", "a launch that comes twice, a sweeper"),
    ],
)
def test_a_planted_bug_is_found(mutant: str, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[mutant].plant(patch)
        found = explore(BY_NAME[name])
    told = [complaint for _, wrong in found.wrong for complaint in wrong]
    assert any(complaint.startswith(f"{MUTANTS[mutant].found_by}:") for complaint in told), told


def test_a_case_has_the_same_states_every_time() -> None:
    case = replace(BY_NAME["two producers"], faults=0)
    assert [explore(case).states for _ in range(2)] == [explore(case).states] * 2
