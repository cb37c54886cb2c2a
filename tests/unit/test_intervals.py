"""Intervals against a set of indices."""

from hypothesis import given
from hypothesis import strategies as st

from piecework.intervals import Intervals
from piecework.spans import indices, spans_of

spans = st.tuples(st.integers(0, 40), st.integers(1, 12))


@given(st.lists(spans, max_size=12), spans)
def test_it_is_a_set_of_indices(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    intervals, expected = Intervals(), set[int]()
    for span in added:
        before = intervals.copy()
        intervals.add(*span)
        assert len(before) == len(expected)
        expected |= set(indices([span]))
        assert len(intervals) == len(expected)
    wanted = list(indices([asked]))
    assert intervals.inside(*asked) == spans_of(i for i in wanted if i in expected)
    assert intervals.outside(*asked) == spans_of(i for i in wanted if i not in expected)


def test_neighbours_become_one() -> None:
    intervals = Intervals()
    for start in (0, 20, 10):
        intervals.add(start, 10)
    assert intervals._starts == [0]
    assert intervals._stops == [30]
