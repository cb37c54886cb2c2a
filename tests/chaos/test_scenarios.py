"""The short form of the chaos suite: each class of scenarios once, small; `make chaos` plays them for longer.

`CHAOS_SEED=…` plays other ones; a failure names the seed.
"""

import os

import pytest

from tests.chaos.mutations import ALL, Mutation
from tests.chaos.scenarios import SCENARIOS, play
from tests.worker_fixture import ROOT

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_and_nothing_is_there_twice(name: str) -> None:
    played = play(name, SEED, small=True)
    assert played.sound, (
        f"python -m tests.chaos.driver --only '{name}' --seed {SEED} --scenarios 1 --small; "
        f"logs: {played.directory}; {played.examined.problems}\n{played.trouble}"
    )
    assert played.examined.items >= 40


def test_each_class_has_a_protection() -> None:
    assert {name for name, _ in ALL} == set(SCENARIOS)


@pytest.mark.parametrize(("name", "mutation"), ALL)
def test_protection_can_be_taken_out(name: str, mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.line) == 1
    assert mutation.line != mutation.without
