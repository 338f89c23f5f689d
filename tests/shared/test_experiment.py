"""Experiments: who is given what, and what a tenant may set."""

from collections import Counter
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.experiment import Experiment
from shared.pacing import Pacing
from shared.tenants import Policy

DOCUMENT = {
    "name": "first-sentence",
    "variants": [
        {"name": "now", "weight": 3},
        {"name": "held", "pacing": {"first_chunk": "sentence"}},
    ],
}


def experiment(**changes: Any) -> Experiment:
    made = Experiment.from_document(DOCUMENT | changes, "experiment")
    assert made
    return made


def test_a_user_keeps_its_variant_and_weights_are_kept_to() -> None:
    it = experiment()
    users = [f"user-{number}" for number in range(4000)]
    first = {user: it.assign("acme", user).name for user in users}
    assert first == {user: experiment().assign("acme", user).name for user in users}
    # Three standard deviations of 4000 draws are 2 %.
    assert Counter(first.values())["now"] / len(users) == pytest.approx(0.75, abs=0.02)


def test_another_experiment_or_tenant_draws_anew() -> None:
    users = [f"user-{number}" for number in range(1000)]
    for other in (experiment(name="again"), experiment()):
        tenant = "acme" if other.name == "again" else "other"
        same = sum(experiment().assign("acme", u) == other.assign(tenant, u) for u in users)
        # By chance: 0.75² + 0.25².
        assert same / len(users) == pytest.approx(0.625, abs=0.06)


def test_a_document_comes_back_as_it_was_meant() -> None:
    policy = Policy.from_document({"experiment": DOCUMENT})
    assert policy.experiment == experiment()
    assert Policy.from_document(policy.to_document()) == policy
    assert policy.experiment
    assert policy.experiment.variants[1].pacing == Pacing(first_chunk="sentence")
    assert Policy.from_document({"experiment": None}) == Policy()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Bad name"}, "experiment.name"),
        ({"name": None}, "experiment.name"),
        ({"variants": [{"name": "one"}]}, "experiment.variants"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "experiment.variants"),
        (
            {"variants": [{"name": "a"}, {"name": "b", "weight": 0}]},
            "experiment.variants[1].weight",
        ),
        (
            {"variants": [{"name": "a", "pacing": {"boundary": "x"}}, {"name": "b"}]},
            "experiment.variants[0].pacing.boundary",
        ),
        ({"until": "x"}, "experiment.until"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        experiment(**changes)
    assert caught.value.extensions["field"] == field
