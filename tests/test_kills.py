"""A small part of the campaign of `make kills`: whoever is killed, nothing is left, and the run says how it ended."""

from __future__ import annotations

import pytest
from kills import campaign, cases, summary
from needs import needs


@pytest.mark.parametrize(
    "launcher",
    ["direct", pytest.param("torchrun", marks=needs("torch")), pytest.param("mpirun", marks=needs("mpirun"))],
)
def test_whoever_is_killed_nothing_is_left_and_the_run_says_how_it_ended(launcher: str) -> None:
    outcomes = campaign(seed=5, count=24, launchers=(launcher,))

    assert len(outcomes) >= 2
    assert not [outcome for outcome in outcomes if outcome.faults], summary(outcomes)


def test_a_campaign_is_the_same_for_the_same_seed() -> None:
    assert list(cases(3, 50))[:10] == list(cases(3, 10))
    assert list(cases(3, 10)) != list(cases(4, 10))
