"""How often idle workers ask: each by itself, until there are so many that the server would be busy with that."""

import pytest

from piecework_worker.worker import idle_seconds


@pytest.mark.parametrize(("workers", "seconds"), [(0, 0.8), (1000, 0.8), (2500, 2.0), (5000, 4.0), (100_000, 4.0)])
def test_many_idle_workers_ask_no_more_often_than_a_thousand(workers: int, seconds: float) -> None:
    assert idle_seconds(workers) == seconds
