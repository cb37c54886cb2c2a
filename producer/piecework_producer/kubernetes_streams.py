"""Answers that go on: watches and followed logs, ended from either side, and told apart from broken ones."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, cast

import msgspec
import urllib3

from piecework_producer.kubernetes_answers import Call, error_of
from piecework_producer.kubernetes_errors import StreamLost
from piecework_producer.kubernetes_objects import Resource

T = TypeVar("T")


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Code(msgspec.Struct, frozen=True):
    code: int = 500


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


@dataclass(frozen=True)
class Change(Generic[T]):
    """One event of a watch. A bookmark has no object: it only moves the resourceVersion on."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: T | None
    resource_version: str


class Lines:
    """The lines of an answer that goes on; `close` from any thread ends the iteration."""

    def __init__(self, response: urllib3.BaseHTTPResponse, call: Call) -> None:
        self._response, self._call, self._closed = response, call, False

    def __iter__(self) -> Iterator[bytes]:
        """Lines without their end. Raises `StreamLost` if the connection breaks; just ends if the server
        ends it.
        """
        rest = b""
        try:
            for part in self._response.stream(amt=None, decode_content=True):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
            if rest:
                yield rest
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            if not self._closed:
                raise StreamLost(f"cannot {self._call}: the stream broke ({error})") from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        self._closed = True
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
            self._response.shutdown()  # a reading thread wakes up, which close alone does not do
        self._response.close()


class Watch(Generic[T]):
    """The changes of a watch, in order."""

    def __init__(self, lines: Lines, resource: Resource[T], call: Call) -> None:
        self._lines, self._resource, self._call = lines, resource, call

    def __iter__(self) -> Iterator[Change[T]]:
        """Ends when the server ends it. Raises `Expired`, and `StreamLost`: watch again from the last
        change.
        """
        for line in self._lines:
            try:
                event = msgspec.json.decode(line, type=_Event)
                if event.type in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
                    kind = cast("Literal['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK']", event.type)
                    version = msgspec.json.decode(event.object, type=_Versioned).metadata.resource_version
                    found = None if kind == "BOOKMARK" else msgspec.json.decode(event.object, type=self._resource.type)
                    yield Change(kind, found, version)
                    continue
                code = msgspec.json.decode(event.object, type=_Code).code
            except msgspec.MsgspecError as error:  # a line cut short
                raise StreamLost(f"cannot {self._call}: the stream broke ({error})") from error
            raise error_of(code, bytes(event.object), self._call)

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._lines.close()
