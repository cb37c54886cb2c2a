"""Spans: round trips, and what is no list of spans."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piecework.errors import CorruptData
from piecework.spans import format_spans, indices, parse_spans, spans_of, without

ascending = st.sets(st.integers(0, 10**15)).map(sorted) | st.sets(st.integers(0, 40)).map(sorted)


@given(ascending)
def test_round_trip(some: list[int]) -> None:
    spans = spans_of(some)
    assert list(indices(spans)) == some
    if spans:
        assert parse_spans(format_spans(spans), "x") == spans
    assert all(sum(a) < b[0] for a, b in pairwise(spans)), "spans that touch are one"


@given(st.integers(0, 10**15), st.integers(0, 30), st.data())
def test_without_and_its_gaps_make_the_whole(start: int, count: int, data: st.DataObject) -> None:
    gaps = sorted(data.draw(st.sets(st.integers(start, start + count - 1)))) if count else []
    spans = without(start, count, gaps)
    assert sorted([*indices(spans), *gaps]) == list(range(start, start + count))
    assert spans == spans_of(indices(spans))


def test_text() -> None:
    assert format_spans([(0, 50), (51, 9)]) == "0+50,51+9"
    assert parse_spans("0+50,51+9", "x") == [(0, 50), (51, 9)]


@pytest.mark.parametrize(
    "text", ["", "1", "1+", "+1", "a+1", "1+1,", "1+2+3", "1.5+1", "-1+1", "1+0", "1+-1", "9" * 5000 + "+1"]
)
def test_what_is_no_list_of_spans(text: str) -> None:
    with pytest.raises(CorruptData, match=r"run r, results 5-0: .*span"):
        parse_spans(text, "run r, results 5-0")


@given(st.text("0123456789+-, ._a", max_size=12))
def test_only_corrupt_data_is_raised(text: str) -> None:
    try:
        spans = parse_spans(text, "x")
    except CorruptData:
        return
    assert all(start >= 0 and count > 0 for start, count in spans)
