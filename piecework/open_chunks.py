"""Whether the open chunks of a run hold exactly what is not recorded, and are where they should be, copies too."""

import re
from collections.abc import Iterable, Iterator

from piecework.errors import CorruptData
from piecework.findings import Finding, Step, ranges
from piecework.intervals import Intervals
from piecework.picture import PLACES, Picture
from piecework.records import Chunk
from piecework.spans import Span, spans_of

_COPY = re.compile(rb"(\d{1,16}) .+", re.ASCII | re.DOTALL)
_OPENED = "opened again, in new chunks"


def parse_chunks(picture: Picture) -> tuple[list[Chunk], dict[bytes, str]]:
    """The chunks that can be read, by number, and what is wrong with the others."""
    chunks: list[Chunk] = []
    damaged: dict[bytes, str] = {}
    for number, packed in picture.chunks.items():
        try:
            chunk = Chunk.parse(number, packed)
        except CorruptData as error:
            damaged[number] = str(error)
            continue
        if chunk.start <= chunk.next <= chunk.stop:
            chunks.append(chunk)
        else:
            damaged[number] = f"chunk {chunk.id} begins at {chunk.start}, is at {chunk.next} and ends at {chunk.stop}"
    return sorted(chunks, key=lambda chunk: chunk.id), damaged


class OpenChunks:
    """The chunks of one picture, compared with the indices that are recorded."""

    def __init__(
        self,
        picture: Picture,
        chunks: list[Chunk],
        damaged: dict[bytes, str],
        total: int,
        recorded: Intervals,
        state: str | None,
    ) -> None:
        """`state`: in which the run is over; None: it is not."""
        self._picture, self._chunks, self._damaged = picture, chunks, damaged
        self._total, self._recorded, self._state = total, recorded, state
        self.taken = recorded.copy()
        """Recorded, or in one of the open chunks that were looked at."""
        self.open: list[Chunk] = []
        """What will be open."""
        self._settled = set(damaged)
        """Chunks that a finding names already."""
        self._largest = max((chunk.stop - chunk.start for chunk in chunks), default=0) or total // 64 + 1

    def findings(self) -> Iterator[Finding]:
        """To be read to the end, in this order."""
        yield from self._divided()
        yield from self._missing()
        yield from self._misplaced()

    def _divided(self) -> Iterator[Finding]:
        """The open items of each chunk are neither recorded nor in another one."""
        for number, why in self._damaged.items():
            yield Finding("chunks", why, f"removed, and what was open in it {_OPENED}", (("drop", number),))
        leased = self._picture.places["leases"]
        by_worker = (chunk for chunk in self._chunks if b"%d" % chunk.id in leased)
        others = (chunk for chunk in self._chunks if b"%d" % chunk.id not in leased)
        for chunk in (chunk for chunks in (by_worker, others) for chunk in chunks):
            start, items = chunk.next, chunk.stop - chunk.next
            if chunk.stop > self._total:
                text = f"chunk {chunk.id} ends at {chunk.stop}, and the run has {self._total} items"
                yield Finding("chunks", text, f"removed, and what was open in it {_OPENED}", (("drop", chunk.id),))
                self._settled.add(b"%d" % chunk.id)
                continue
            if not items:
                continue
            free = self.taken.outside(start, items)
            if free == [(start, items)]:
                self.taken.add(start, items)
                self.open.append(chunk)
                continue
            name = f"chunk {chunk.id}, open from {start} to {chunk.stop - 1},"
            if recorded := self._recorded.inside(start, items):
                told = f"{name} overlaps what is recorded: {ranges(recorded)}"
            else:
                told = f"{name} overlaps other open chunks: {ranges(self.taken.inside(start, items))}"
            if not free:
                yield Finding("chunks", told, "closed", (("chunk", chunk.id, chunk.start, chunk.stop, chunk.stop),))
                self._settled.add(b"%d" % chunk.id)
                continue
            first, length = free[0]
            self.taken.add(first, length)
            self.open.append(chunk)
            step: Step = ("chunk", chunk.id, chunk.start, first + length, first)
            yield Finding("chunks", told, f"left with {ranges([free[0]])}", (step,))

    def _missing(self) -> Iterator[Finding]:
        missing = self.taken.outside(0, self._total) if self._total else []
        if not missing:
            return
        what = "is" if sum(length for _, length in missing) == 1 else "are"
        yield Finding(
            "indices",
            f"{ranges(missing)} {what} in no result, no failure and no open chunk",
            _OPENED,
            tuple(("open", start, stop) for start, stop in self._pieces(missing)),
        )

    def _pieces(self, spans: list[Span]) -> Iterator[tuple[int, int]]:
        for start, length in spans:
            for at in range(start, start + length, self._largest):
                yield at, min(at + self._largest, start + length)

    def _misplaced(self) -> Iterator[Finding]:
        """Each open chunk is in one place, and no other one is in any."""
        places = self._picture.places
        open_ = {b"%d" % chunk.id: chunk for chunk in self.open}
        stray: dict[str, list[bytes]] = {}
        for number in {number for name in PLACES for number in places[name]} - open_.keys() - self._settled:
            stray.setdefault(" and ".join(name for name in PLACES if number in places[name]), []).append(number)
        for where, numbers in stray.items():
            told = name_chunks(int(number) for number in numbers if number.isdigit()) or "what is no chunk"
            steps = tuple(("unplace", number) for number in numbers)
            yield Finding("chunks", f"{told}: in {where}, but not open", "taken out", steps)
        misplaced: dict[str, list[Chunk]] = {}
        for number, chunk in open_.items():
            found = [name for name in PLACES if number in places[name]]
            if len(found) != 1 or (self._state and found != ["waiting"]):
                where = " and ".join(found) or f"none of {', '.join(PLACES)}"
                where += f", and the run is {self._state}" if self._state and found else ""
                misplaced.setdefault(where, []).append(chunk)
        for where, chunks in misplaced.items():
            items = ranges((chunk.next, chunk.stop - chunk.next) for chunk in chunks)
            text = f"{name_chunks(chunk.id for chunk in chunks)}, with {items} open: in {where}"
            yield Finding("chunks", text, "waiting", tuple(("place", chunk.id) for chunk in chunks))


def check_copies(key: str, picture: Picture, chunks: list[Chunk]) -> Iterator[Finding]:
    """A copy is of an open chunk, but for one that remembers whose work came second. `key`: where they are."""
    left = {b"%d" % chunk.id: chunk.stop - chunk.next for chunk in chunks}
    for number, packed in picture.copies.items():
        found = _COPY.fullmatch(packed)
        if found is None or number not in left or (int(found[1]) == 0) == (left[number] > 0):
            pair = f"{number.decode(errors='replace')!r}, {packed[:80].decode(errors='replace')!r}"
            text = f"what {key} has for {pair}, is no copy of a chunk"
            yield Finding("chunks", text, "all copies are forgotten", (("uncopy",),))


def name_chunks(numbers: Iterable[int]) -> str:
    """Chunks for people: "chunks 2-4, 7"; "" for none."""
    spans = spans_of(sorted(numbers))
    return ranges(spans).replace("item", "chunk", 1) if spans else ""
