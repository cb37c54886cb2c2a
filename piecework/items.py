"""Reads items: ranges, lines, JSON Lines, any iterable. Streams; a block of items is all that is held at
once.

What is read is encoded item by item, so that an item that cannot be stored is named by its line or index, and
the digest of what was read so far tells whether a second submission reads the same.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from piecework import codec
from piecework.errors import BadInput, UsageError
from piecework.records import ItemsKind

BLOCK_BYTES = 256 * 1024
"""A block of items is closed when it has this many bytes, before compression."""
MOST_ITEMS = 1 << 50
"""Lua counts in floating point, exactly up to 2**53."""


@dataclass(frozen=True)
class Range:
    """`start:stop:step` as a pile: no item of it is stored anywhere."""

    start: int
    stop: int
    step: int = 1

    @property
    def total(self) -> int:
        """Number of items. (`len` of a range fails beyond 2**63.)"""
        return max(0, -((self.start - self.stop) // self.step))


@dataclass(frozen=True)
class Stream:
    """Items that are read once, in order."""

    kind: ItemsKind
    encoded: Iterator[bytes]
    """Each item as `codec.encode` gives it. Raises `BadInput` with the line or the index."""


Pile = Range | Stream


def parse_range(text: str) -> Range:
    """`START:STOP[:STEP]`, as in a Python slice. Raises `UsageError`."""
    parts = text.split(":")
    try:
        start, stop, step = (int(part) for part in (*parts, "1")[:3])
    except ValueError:
        raise UsageError(f"--range {text!r} is not START:STOP[:STEP] of integers, such as 0:1000") from None
    if len(parts) > 3 or step == 0:
        raise UsageError(f"--range {text!r} is not START:STOP[:STEP] with a STEP other than 0, such as 0:1000")
    return checked_range(start, stop, step)


def checked_range(start: int, stop: int, step: int) -> Range:
    """A range within what the ledger counts exactly. Raises `UsageError`."""
    checked = Range(start, stop, step)
    if checked.total > MOST_ITEMS:
        raise UsageError(f"{start}:{stop}:{step} has more items than a run can have ({MOST_ITEMS:,})")
    return checked


def lines(stream: BinaryIO, name: str) -> Stream:
    """One item for each line, a str without its line end. `name` is how errors call the input."""
    return Stream("lines", _encoded_lines(stream, name))


def jsonl(stream: BinaryIO, name: str) -> Stream:
    """One item for each line, JSON; blank lines are passed over."""
    return Stream("jsonl", _encoded_jsonl(stream, name))


def iterable(values: Iterable[object]) -> Pile:
    """Any iterable from Python; a `range` is not stored item by item."""
    if isinstance(values, range):
        return checked_range(values.start, values.stop, values.step)
    return Stream("iterable", _encoded_values(values))


def _raw_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            yield line.removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise BadInput(f"{name}, line {number + 1}: cannot be read: {error.strerror}") from error


def _encoded_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    encode = codec.encode
    for number, line in enumerate(_raw_lines(stream, name), 1):
        try:
            yield encode(line.decode())
        except UnicodeDecodeError as error:
            raise BadInput(f"{name}, line {number}: not UTF-8 (byte {error.start + 1} of the line)") from None
        except codec.Unstorable as error:
            raise BadInput(f"{name}, line {number}: {error}") from None


def _encoded_jsonl(stream: BinaryIO, name: str) -> Iterator[bytes]:
    encode, decode = codec.encode_json, msgspec.json.Decoder().decode
    for number, line in enumerate(_raw_lines(stream, name), 1):
        try:
            yield encode(decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, codec.Unstorable, RecursionError) as error:
            if not line.strip():
                continue
            raise BadInput(f"{name}, line {number}: {error} in {line[:80].decode(errors='replace')!r}") from None


def _encoded_values(values: Iterable[object]) -> Iterator[bytes]:
    encode = codec.encode
    for index, value in enumerate(values):
        try:
            yield encode(value)
        except codec.Unstorable as error:
            raise BadInput(f"item {index}: {error}") from None


def blocks(encoded: Iterator[bytes], boundary: Callable[[], int]) -> Iterator[tuple[int, list[bytes]]]:
    """Group items to blocks: (index of the first, items). A block ends at its size, and at index
    `boundary()`.
    """
    first, size, edge = 0, 0, boundary()
    block: list[bytes] = []
    for item in encoded:
        block.append(item)
        size += len(item)
        if size >= BLOCK_BYTES or first + len(block) == edge:
            yield first, block
            first, size, block, edge = first + len(block), 0, [], boundary()
    if block:
        yield first, block
