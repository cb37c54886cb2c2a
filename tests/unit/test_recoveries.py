"""When the benchmark under fire takes a kill for over: not before all that was lost is in somebody's hands again."""

from bench._recoveries import Kill, Recoveries, minus

A, B, NEW = "run-0-aaaaaa", "run-1-bbbbbb", "run-0-cccccc"


def at_work() -> Recoveries:
    """Two workers with 100 items each, of which ten are recorded."""
    recoveries = Recoveries()
    for worker, chunk, start in ((A, "1", 0), (B, "2", 100)):
        recoveries.claimed(1.0, worker, chunk, start, start + 100)
        recoveries.committed(2.0, worker, [(start, 10)])
    return recoveries


def test_a_worker_is_back_when_its_items_are_claimed_and_its_place_is_at_work() -> None:
    recoveries = at_work()
    recoveries.killed(kill := Kill("worker", 3.0, A))
    assert kill.missing == [(10, 90)]
    recoveries.claimed(4.0, B, "1", 10, 100)
    assert (kill.missing, kill.absent, kill.over) == ([], {"run-0"}, None)
    recoveries.claimed(5.0, NEW, "3", 200, 300)
    assert kill.over == 5.0


def test_a_replacement_alone_is_not_enough() -> None:
    recoveries = at_work()
    recoveries.killed(kill := Kill("worker", 3.0, A))
    recoveries.claimed(4.0, NEW, "3", 200, 300)
    assert kill.over is None
    recoveries.claimed(5.0, B, "1", 10, 60)
    recoveries.committed(6.0, B, [(60, 40)])
    assert kill.over == 6.0


def test_what_the_dead_claimed_in_its_last_moment_is_missing_too() -> None:
    recoveries = at_work()
    recoveries.killed(kill := Kill("worker", 3.0, A))
    recoveries.claimed(3.0, A, "3", 200, 300)
    recoveries.claimed(4.0, NEW, "1", 10, 100)
    assert (kill.missing, kill.over) == ([(200, 100)], None)


def test_a_horse_is_over_when_its_worker_has_claimed_all_parts_again() -> None:
    recoveries = at_work()
    recoveries.killed(kill := Kill("horse", 3.0, A))
    recoveries.claimed(3.1, A, "4", 20, 21)
    recoveries.claimed(3.2, A, "1", 10, 20)
    assert kill.over is None
    recoveries.claimed(3.7, A, "5", 21, 100)
    assert kill.over == 3.7


def test_what_was_stolen_before_is_not_the_victim_s() -> None:
    recoveries = at_work()
    recoveries.stolen("1", 50)
    recoveries.killed(kill := Kill("horse", 3.0, A))
    assert kill.missing == [(10, 40)]


def test_a_victim_that_had_nothing_costs_nothing() -> None:
    recoveries = at_work()
    recoveries.committed(2.5, A, [(10, 90)])
    recoveries.killed(kill := Kill("horse", 3.0, A))
    assert kill.over == 3.0


def test_the_server_is_back_when_every_place_has_committed() -> None:
    recoveries = at_work()
    recoveries.killed(kill := Kill("server", 3.0))
    recoveries.committed(3.5, B, [(110, 5)])
    recoveries.committed(3.6, B, [(115, 5)])
    assert (kill.first, kill.over) == (3.5, None)
    recoveries.committed(4.0, NEW, [(10, 5)])
    assert (kill.first, kill.over) == (3.5, 4.0)


def test_minus() -> None:
    assert minus([(0, 10), (20, 10)], 5, 20) == [(0, 5), (25, 5)]
