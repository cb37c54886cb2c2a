"""Reading items: what is accepted, and what an error says. No server."""

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piecework import codec, items
from piecework.errors import BadInput, UsageError
from piecework.items import (
    BLOCK_BYTES,
    MOST_ITEMS,
    Range,
    Stream,
    blocks,
    iterable,
    jsonl,
    lines,
    parse_range,
)


def values(stream: Stream) -> list[Any]:
    return list(codec.unpack(codec.pack_encoded(list(stream.encoded)), "test"))


@pytest.mark.parametrize(
    "text",
    [
        "0:10",
        "10:0",
        "10:0:-1",
        "10:-5:-3",
        "0:10:3",
        "-5:5:2",
        "5:5",
        "0:1:100",
        "3:0:2",
        " 1 : 3 ",
        "1_000:2_000",
    ],
)
def test_a_range_has_the_items_that_python_gives(text: str) -> None:
    expected = range(*(int(part) for part in text.split(":")))

    assert parse_range(text) == Range(expected.start, expected.stop, expected.step)
    assert parse_range(text).total == len(expected)


@pytest.mark.parametrize("text", ["", "5", "1:2:3:4", "a:b", "1:2:0", ":10", "1:", "0:1e6", "0:10:", "1.5:2"])
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"such as 0:1000"):
        parse_range(text)


def test_a_range_may_lie_beyond_64_bits_but_not_have_more_items_than_the_ledger_counts() -> None:
    assert parse_range(f"{2**70}:{2**70 + 5}").total == 5
    assert parse_range(f"0:{MOST_ITEMS}").total == MOST_ITEMS
    for stop in (MOST_ITEMS + 1, 2**63, 2**64, 2**200):
        with pytest.raises(UsageError, match="more items than a run can have"):
            parse_range(f"0:{stop}")
    with pytest.raises(UsageError, match="more items than a run can have"):
        iterable(range(2**200))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\n b \n", ["a", "", " b "]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
        ("ä😀\u2028x\x0by\x85\n".encode(), ["ä😀\u2028x\x0by\x85"]),
        (b"a\x00b\n", ["a\x00b"]),
        (b"a\rb\r\r\n", ["a\rb\r"]),
    ],
)
def test_each_line_is_an_item(data: bytes, expected: list[str]) -> None:
    assert values(lines(io.BytesIO(data), "input")) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b'1\n"a"\nnull\n[1, {"b": 2.5}]\n', [1, "a", None, [1, {"b": 2.5}]]),
        (b"1\r\n2\r\n", [1, 2]),
        (b"1\n\n   \n\t\r\n2", [1, 2]),
        (b"\xef\xbb\xbf[1]\n", [[1]]),
        (
            b"123456789012345678901234567890\n-99999999999999999999\n",
            [123456789012345678901234567890, -(10**20) + 1],
        ),
    ],
)
def test_each_line_that_is_not_blank_is_a_json_item(data: bytes, expected: list[Any]) -> None:
    assert values(jsonl(io.BytesIO(data), "input")) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1\n\n{bad\n", r"^jobs\.jsonl, line 3: .*malformed.* in '\{bad'$"),
        (b'{"a": 1}{"a": 2}\n', r"^jobs\.jsonl, line 1: .*trailing characters"),
        (b"NaN\n", r"^jobs\.jsonl, line 1: "),
        (b"1\n\xff\xfe\n", r"^jobs\.jsonl, line 2: "),
        (b'"\xff"\n', r"^jobs\.jsonl, line 1: "),
        (b'"\\ud800"\n', r"^jobs\.jsonl, line 1: "),
        (b"1" * 5000 + b"\n", r"^jobs\.jsonl, line 1: .*out of range"),
        (b"[" * 100_000, r"^jobs\.jsonl, line 1: "),
    ],
)
def test_a_bad_json_line_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        values(jsonl(io.BytesIO(data), "jobs.jsonl"))


def test_a_line_that_is_not_utf_8_is_named_with_the_byte() -> None:
    with pytest.raises(BadInput, match=r"^standard input, line 2: not UTF-8 \(byte 3 of the line\)$"):
        values(lines(io.BytesIO(b"a\nab\xff\n"), "standard input"))


def test_an_item_that_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_BYTES", 1000)

    with pytest.raises(BadInput, match=r"^files\.txt, line 2: .* cannot be stored"):
        values(lines(io.BytesIO(b"a\n" + b"x" * 2000), "files.txt"))
    with pytest.raises(BadInput, match=r"^jobs, line 1: .* cannot be stored"):
        values(jsonl(io.BytesIO(b'"' + b"x" * 2000 + b'"'), "jobs"))


def test_a_read_error_is_named_with_the_line() -> None:
    class Torn(io.BytesIO):
        def __next__(self) -> bytes:
            if self.tell() > 3:
                raise OSError(5, "Input/output error")
            return super().__next__()

    with pytest.raises(BadInput, match=r"^disk, line 3: cannot be read: Input/output error$"):
        values(lines(Torn(b"a\nb\nc\n"), "disk"))


def test_an_item_from_python_that_cannot_be_stored_is_named_by_its_index() -> None:
    with pytest.raises(BadInput, match=r"^item 2: a value of type object"):
        values(stream_of([1, "a", object()]))
    recursive: list[Any] = []
    recursive.append(recursive)
    with pytest.raises(BadInput, match=r"^item 0: .*contains itself"):
        values(stream_of([recursive]))


def test_any_iterable_is_read_once_and_a_range_is_not_read_at_all() -> None:
    assert iterable(range(3, 30, 4)) == Range(3, 30, 4)
    assert values(stream_of(item for item in (1, b"x", 3**100))) == [1, b"x", 3**100]


def stream_of(items: Any) -> Stream:
    pile = iterable(items)
    assert isinstance(pile, Stream)
    return pile


def test_a_block_ends_at_its_size_and_at_the_boundary_and_no_more_than_one_is_held() -> None:
    asked = 0

    def encoded() -> Iterator[bytes]:
        nonlocal asked
        for _ in range(5000):
            asked += 1
            yield b"x" * 100

    sizes: list[int] = []
    edge = 1000
    for first, block in blocks(encoded(), lambda: edge):
        assert first == sum(sizes)
        assert asked == first + len(block), "read ahead"
        sizes.append(len(block))

    assert sum(sizes) == 5000
    assert sizes[0] == 1000
    assert sizes[1] == -(-BLOCK_BYTES // 100)


def test_kinds_are_told_apart() -> None:
    assert [items.lines(io.BytesIO(), "").kind, items.jsonl(io.BytesIO(), "").kind] == ["lines", "jsonl"]


JSON_LINES = [b'{"a": [1, null, "x\\u00e4"]}', b'"\\ud800"', b"9" * 5000, b"[" * 3000, b"\xef\xbb\xbf[1]\r", b"NaN"]


@given(st.lists(st.binary(max_size=40) | st.sampled_from(JSON_LINES), max_size=4), st.data())
def test_any_bytes_are_items_or_an_error_with_the_line(parts: list[bytes], data: st.DataObject) -> None:
    raw = bytearray(b"\n".join(parts))
    for _ in range(data.draw(st.integers(0, 3)) if raw else 0):
        raw[data.draw(st.integers(0, min(len(raw), 100) - 1))] = data.draw(st.integers(0, 255))
    for read in (lines, jsonl):
        try:
            number = len(list(read(io.BytesIO(raw), "FILE").encoded))
        except BadInput as error:
            said = str(error)
        else:
            said = f"FILE, line {number}"
        found = re.match(r"FILE, line (\d+)", said)
        assert found is not None
        assert int(found[1]) <= raw.count(b"\n") + 1
        assert "\n" not in said
