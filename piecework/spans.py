"""Which indices an entry of the results or the failures stream holds: contiguous spans, as text "0+50,51+9".

An entry packs the outcomes of many items in index order; items that are tried again, or that failed, leave
gaps.
"""

from collections.abc import Iterable, Iterator

from piecework.errors import CorruptData

_MOST_INDEX = 1 << 53
Span = tuple[int, int]
"""(first index, number of items)."""


def spans_of(indices: Iterable[int]) -> list[Span]:
    """Join ascending indices to spans."""
    spans: list[Span] = []
    for index in indices:
        if spans and sum(spans[-1]) == index:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((index, 1))
    return spans


def without(start: int, count: int, gaps: Iterable[int]) -> list[Span]:
    """The spans that cover start..start+count-1 but the ascending indices in `gaps`."""
    spans: list[Span] = []
    for gap in (*gaps, start + count):
        if gap > start:
            spans.append((start, gap - start))
        start = gap + 1
    return spans


def format_spans(spans: Iterable[Span]) -> str:
    """Text of the spans, as it stands in the streams."""
    return ",".join(f"{start}+{count}" for start, count in spans)


def parse_spans(text: str, where: str) -> list[Span]:
    """The spans in a stream entry. Raises `CorruptData` naming `where` if it is no such text."""
    try:
        spans = [(int(start), int(count)) for start, count in (part.split("+") for part in text.split(","))]
    except ValueError:
        raise CorruptData(f"{where}: {text[:80]!r} is not a list of spans") from None
    if any(start < 0 or count < 1 or start + count > _MOST_INDEX for start, count in spans):
        raise CorruptData(f"{where}: {text[:80]!r} has an impossible span")
    return spans


def indices(spans: Iterable[Span]) -> Iterator[int]:
    """All indices of the spans, in order."""
    for start, count in spans:
        yield from range(start, start + count)
