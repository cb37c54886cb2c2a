"""How items, results and failures become bytes: MessagePack (msgspec) in a zstd frame, many at a time. No
pickle.

Allowed values: None, bool, int of any size, float, str, bytes, datetime, and lists, tuples (read back as
lists) and dicts with str keys of these. Anything else is refused with its type, never converted silently.
Bytes that do not decode raise `CorruptData`.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import zstandard

from piecework.errors import CorruptData

_BIG_INT = 1
_NAIVE_DATETIME = 2
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
MOST_BYTES = 256 << 20
"""Most bytes that one `pack` may hold before compression; Redis takes 512 MiB in one string."""

_BLOCK_BYTES = 1 << 20
"""A value of `MOST_BYTES` may come into a block that has others already."""


class _Zstd(threading.local):
    """One for each thread: two threads in the same (de)compressor crash the process."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=3).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


class Unstorable(TypeError):
    """A value cannot be stored; the message names its type."""


class TooLarge(Unstorable):
    """The values are larger than `MOST_BYTES` together."""


def _storable(value: object) -> object:
    """Return `value` in terms that MessagePack has; raise `Unstorable` naming the type that it has not."""
    kind = type(value)
    if kind is int:
        if -(1 << 63) <= value < 1 << 64:  # type: ignore[operator]
            return value
        size = (value.bit_length() + 8) // 8  # type: ignore[attr-defined]
        return msgspec.msgpack.Ext(_BIG_INT, value.to_bytes(size, "little", signed=True))  # type: ignore[attr-defined]
    if kind in _PLAIN:
        return value
    if kind is datetime:
        return _storable_datetime(value)  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        return [_storable(element) for element in value]  # type: ignore[attr-defined]
    if kind is dict:
        for key in value:  # type: ignore[attr-defined]
            if type(key) is not str:
                raise Unstorable(f"a dict with a key of type {_name(type(key))}; keys must be str")
        return {key: _storable(element) for key, element in value.items()}  # type: ignore[attr-defined]
    raise Unstorable(
        f"a value of type {_name(kind)} cannot be stored; "
        "return None, bool, int, float, str, bytes, datetime, or lists and dicts of these"
    )


def _storable_datetime(value: datetime) -> object:
    if value.utcoffset() is None:
        return msgspec.msgpack.Ext(_NAIVE_DATETIME, value.replace(tzinfo=None).isoformat().encode())
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise Unstorable(f"the datetime {value.isoformat()} cannot be stored: it is out of range in UTC") from None
    return value


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _from_ext(code: int, data: memoryview) -> object:
    if code == _BIG_INT:
        return int.from_bytes(data, "little", signed=True)
    if code == _NAIVE_DATETIME:
        return datetime.fromisoformat(bytes(data).decode())
    raise ValueError(f"unknown extension code {code}")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list, ext_hook=_from_ext)


def check(value: object) -> None:
    """Raise `Unstorable` if `value` cannot be stored."""
    pack([value])


def encode(value: object) -> bytes:
    """One value as MessagePack, for `pack_encoded`. Raises `Unstorable`."""
    return _encode(value, type(value) in _PLAIN)


def encode_json(value: object) -> bytes:
    """As `encode`, but faster, for a value decoded from JSON: of its types only integers may need care."""
    return _encode(value, True)


def pack(values: Sequence[object]) -> bytes:
    """Pack a list of values. Raises `Unstorable` if any of them cannot be stored (see `check`)."""
    return _zstd.compress(_encode(list(values), _PLAIN.issuperset(map(type, values))))


def pack_encoded(values: Sequence[bytes]) -> bytes:
    """Pack a list of values that `encode` gave; the same as `pack` of what they were."""
    return _zstd.compress(_encoder.encode([msgspec.Raw(value) for value in values]))


def _encode(value: object, plain: bool) -> bytes:
    """`plain`: of what MessagePack has not, the value holds nothing but large integers."""
    try:
        try:
            encoded = _encoder.encode(value if plain else _storable(value))
        except OverflowError:
            encoded = _encoder.encode(_storable(value))
    except RecursionError:
        raise Unstorable("a value that is nested too deeply, or contains itself, cannot be stored") from None
    except UnicodeEncodeError as error:
        raise Unstorable(f"a str with the lone surrogate {error.object[error.start]!a} cannot be stored") from None
    if len(encoded) > MOST_BYTES:
        raise TooLarge(f"a value of {len(encoded) >> 20} MiB cannot be stored; the limit is {MOST_BYTES >> 20} MiB")
    return encoded


def unpack(packed: bytes, where: str) -> list[Any]:
    """Unpack what `pack` made. Raises `CorruptData` naming `where` for anything else."""
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= MOST_BYTES + _BLOCK_BYTES:
            raise ValueError(f"a frame of {size} bytes")
        return _decoder.decode(_zstd.decompress(packed))
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise CorruptData(f"{where}: the stored bytes are damaged ({error})") from None
