"""The codec: what goes in comes out, what is not allowed is named, and damage is never anything but
`CorruptData`.
"""

# ruff: noqa: DTZ001, DTZ901 - naive datetimes are values, too

import random
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum, StrEnum
from math import inf, isnan, nan
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from piecework import codec
from piecework.codec import TooLarge, Unstorable, check, encode, encode_json, pack, pack_encoded, unpack
from piecework.errors import CorruptData

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
zones = st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")]) | st.builds(
    timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
)
aware = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 200), 1 << 200)
    | st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), -(1 << 63) - 1])
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
    | st.datetimes()
    | aware
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all through (1 == True == 1.0)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, datetime):
        return bool(a == (b if b.tzinfo is None else b.astimezone(UTC)))
    return bool(a == b)


@given(st.lists(values, max_size=5))
def test_round_trip(some: list[object]) -> None:
    assert same(unpack(pack(some), "x"), some)


@given(st.lists(json_values, max_size=5))
def test_values_encoded_one_by_one_make_the_same_list(some: list[object]) -> None:
    for each in (encode, encode_json):
        assert same(unpack(pack_encoded([each(value) for value in some]), "x"), some)


def test_tuples_come_back_as_lists() -> None:
    assert unpack(pack([(1, (2, "a"), {"b": (3,)})]), "x") == [[1, [2, "a"], {"b": [3]}]]
    assert unpack(pack((1, 1 << 70)), "x") == [1, 1 << 70]


def test_integers_of_any_size() -> None:
    for exponent in (8, 63, 64, 127, 128, 100_000):
        for value in (2**exponent, -(2**exponent), 2**exponent - 1, 1 - 2**exponent):
            assert unpack(pack([value, [value]]), "x") == [value, [value]]


def test_floats_that_are_no_numbers() -> None:
    not_a_number, *infinite = unpack(pack([nan, inf, -inf]), "x")
    assert isnan(not_a_number)
    assert infinite == [inf, -inf]


def test_an_aware_datetime_keeps_its_instant_and_a_naive_one_stays_naive() -> None:
    berlin = datetime(2026, 11, 21, 18, 30, 1, 123456, tzinfo=ZoneInfo("Europe/Berlin"))
    back, naive = unpack(pack([berlin, datetime(2026, 11, 21, 18, 30, 1, 123456)]), "x")
    assert back == berlin
    assert back.tzinfo == UTC
    assert naive == datetime(2026, 11, 21, 18, 30, 1, 123456)
    assert naive.tzinfo is None


class Nowhere(tzinfo):
    """A time zone that does not say its offset: what carries it counts as naive."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        return None


def test_a_time_zone_without_offset_makes_no_instant() -> None:
    assert unpack(pack([datetime(2026, 1, 1, tzinfo=Nowhere())]), "x") == [datetime(2026, 1, 1)]


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_the_first_and_the_last_datetime(moment: datetime) -> None:
    assert unpack(pack([moment, moment.replace(tzinfo=UTC)]), "x") == [moment, moment.replace(tzinfo=UTC)]
    hours = 14 if moment is datetime.min else -14
    beyond = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    for value in (beyond, [beyond, 1 << 70]):
        with pytest.raises(Unstorable, match=r"datetime .* out of range in UTC"):
            pack([value])


# --- what is refused


class Color(IntEnum):
    RED = 1


class Word(StrEnum):
    YES = "yes"


class Struct(msgspec.Struct):
    a: int = 1


@dataclass
class Point:
    x: int = 1


Pair = namedtuple("Pair", "a b")


class Text(str):
    """A str of its own kind."""

    __slots__ = ()


REFUSED: list[tuple[object, str]] = [
    ({1, 2}, "set"),
    (frozenset(), "frozenset"),
    (Decimal("1.5"), "decimal.Decimal"),
    (date(2026, 1, 1), "datetime.date"),
    (timedelta(1), "datetime.timedelta"),
    (1j, "complex"),
    (bytearray(b"a"), "bytearray"),
    (memoryview(b"a"), "memoryview"),
    (range(3), "range"),
    (object(), "object"),
    (int, "type"),
    (len, "builtin_function_or_method"),
    (Color.RED, f"{__name__}.Color"),
    (Word.YES, f"{__name__}.Word"),
    (Text("a"), f"{__name__}.Text"),
    (Struct(), f"{__name__}.Struct"),
    (Point(), f"{__name__}.Point"),
    (Pair(1, 2), f"{__name__}.Pair"),
    (OrderedDict(a=1), "collections.OrderedDict"),
    (msgspec.Raw(b"\x01"), "msgspec.Raw"),
    (msgspec.msgpack.Ext(1, b""), "msgspec.msgpack.Ext"),
    ({1: "a"}, "int"),
    ({None: "a"}, "NoneType"),
    ({b"a": "a"}, "bytes"),
    ({Word.YES: 1}, f"{__name__}.Word"),
    ({("a", "b"): "a"}, "tuple"),
]


@pytest.mark.parametrize(("value", "name"), REFUSED, ids=[name for _, name in REFUSED])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": [1, {"b": v}]}, lambda v: (1 << 70, v)])
def test_a_refused_value_names_its_type(value: object, name: str, wrap: Callable[[object], object]) -> None:
    wrapped = wrap(value)
    for call in (check, encode, lambda v: pack([v]), lambda v: pack([1, "a", v])):
        with pytest.raises(Unstorable) as caught:
            call(wrapped)
        assert f"type {name} " in str(caught.value) or f"type {name};" in str(caught.value)


def test_numpy_scalars_are_named() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(1.5), numpy.int64(1), numpy.bool_(True), numpy.array([1])):
        with pytest.raises(Unstorable, match=r"numpy\."):
            check(value)


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", {"\udc80": 1}, [["\ud800"], 1 << 70]])
def test_lone_surrogates_are_shown(value: object) -> None:
    for call in (check, encode, encode_json):
        with pytest.raises(Unstorable, match=r"lone surrogate '\\ud[8cf]"):
            call(value)


def test_what_contains_itself_or_is_nested_too_deeply() -> None:
    loop: list[object] = []
    loop.append(loop)
    ring: dict[str, object] = {}
    ring["ring"] = [ring]
    deep: object = 1
    for _ in range(200_000):
        deep = [deep]
    for value in (loop, ring, deep, [1 << 70, deep]):
        for call in (check, encode, encode_json):
            with pytest.raises(Unstorable, match="nested too deeply"):
                call(value)


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_BYTES", 1 << 20)
    pack(["a" * 1_000_000])
    for call in (check, encode, encode_json, lambda v: pack([v, v])):
        with pytest.raises(TooLarge, match="MiB cannot be stored; the limit is 1 MiB"):
            call("a" * (1 << 20))


def test_the_largest_value_fits_into_a_block_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_BYTES", 1 << 20)
    largest = "a" * ((1 << 20) - 5)
    block = [encode(b"b" * 200_000), encode(largest)]
    assert unpack(pack_encoded(block), "x")[1] == largest


# --- damage

compress = zstandard.ZstdCompressor().compress


def unpacks_or_is_corrupt(data: bytes) -> None:
    try:
        assert isinstance(unpack(data, "run r, results 1-0"), list)
    except CorruptData as error:
        said = str(error)
    else:
        said = "run r, results 1-0: the stored bytes are damaged"
    assert said.startswith("run r, results 1-0: the stored bytes are damaged")


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    unpacks_or_is_corrupt(data)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"\x9f" + data))
def test_any_bytes_in_a_sound_frame(data: bytes) -> None:
    unpacks_or_is_corrupt(compress(data))


@given(st.lists(values, min_size=1, max_size=5), st.data())
def test_bytes_that_were_changed_cut_or_lost(some: list[object], data: st.DataObject) -> None:
    packed = bytearray(pack(some))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    unpacks_or_is_corrupt(bytes(packed))
    unpacks_or_is_corrupt(bytes(packed[: data.draw(st.integers(0, len(packed)))]))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xc0",
        b"\x91",
        b"\x91" * 100_000,
        b"\x91\xc1",
        b"\x91\x81\x80\xc0",
        b"\x91\xd4\x02\x05",
        b"\x91\xd5\x02\xff\xff",
        b"\x91\xd4\x03\x05",
        b"\x91\xc7\x0c\xff" + b"\xff" * 12,
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xa2\xff\xff",
    ],
)
def test_sound_frames_of_damaged_values(encoded: bytes) -> None:
    with pytest.raises(CorruptData):
        unpack(compress(encoded), "x")


def test_a_frame_that_says_it_is_enormous_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_BYTES", 1 << 20)
    frame = compress(b"\x91\xc6\x00\x30\x00\x00" + bytes(3 << 20))
    assert len(frame) < 1000
    with pytest.raises(CorruptData, match="frame of"):
        unpack(frame, "x")
    stream = zstandard.ZstdCompressor().compressobj()
    with pytest.raises(CorruptData):
        unpack(stream.compress(b"\x91\x01") + stream.flush(), "x")


def test_threads_do_not_disturb_each_other() -> None:
    """A zstd context that two threads share crashes the process."""
    wrong: list[object] = []

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        for _ in range(100):
            some = [numbers.randbytes(10_000).hex(), seed]
            if unpack(pack(some), "x") != some:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
