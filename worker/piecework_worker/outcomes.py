"""The outcomes of some items in a row, on their way into one commit: results to be packed, and failures."""

import traceback
from typing import Any

import zstandard

from piecework import codec
from piecework.records import Failure
from piecework_worker import item_memory

_LONGEST_RETRY_DELAY = 60.0


def retry_delay(attempt: int) -> float:
    """Seconds before the next attempt after `attempt` failed ones: 1, 2, 4, … up to 60."""
    return min(2.0 ** min(attempt - 1, 10), _LONGEST_RETRY_DELAY)


def failure_of(error: BaseException, attempt: int) -> Failure:
    """The record of an exception that a handler raised, also of one that cannot tell what it is."""
    kind = type(error).__qualname__
    try:
        with item_memory.met(error) as limit:
            message = ": ".join(filter(None, (limit, str(error))))
            return Failure(kind, message, "".join(traceback.format_exception(error)), attempt)
    except Exception as second:
        return Failure(kind, f"its message cannot be had: str() of it raised {type(second).__name__}", "", attempt)


class Outcomes:
    """Outcomes of the items start, start+1, …; `values` has a None for each that is in `failures`."""

    def __init__(self, start: int, values: list[Any], failures: dict[int, Failure], attempt: int) -> None:
        self.start, self.values = start, values
        self.failures: dict[int, Failure] = {}
        """By index, ascending."""
        self.item_bytes = 0
        """What a result takes on average, before compression; known when it is packed."""
        self._attempt = attempt
        if failures:
            found = range(start, start + len(values))
            self.failures = {index: failures[index] for index in found if index in failures}

    def pack(self, most_failures: int) -> bytes:
        """Pack the results; one that cannot be stored becomes a failure of its item.

        Too large together, or too many failures: only as many of the first items as will do are left after.
        """
        while True:
            if len(self.failures) > most_failures:
                self._keep(list(self.failures)[most_failures] - self.start)
            results = self._results()
            try:
                packed = codec.pack(results) if results else b""
            except codec.Unstorable as error:
                if isinstance(error, codec.TooLarge) and len(self.values) > 1:
                    self._keep(len(self.values) // 2)
                else:
                    self._fail_unstorable()
            else:
                self.item_bytes = zstandard.frame_content_size(packed) // len(results) if results else 0
                return packed

    def _results(self) -> list[Any]:
        if not self.failures:
            return self.values
        return [value for index, value in enumerate(self.values, self.start) if index not in self.failures]

    def _keep(self, count: int) -> None:
        del self.values[count:]
        self.failures = {i: each for i, each in self.failures.items() if i < self.start + count}

    def _fail_unstorable(self) -> None:
        failures = dict(self.failures)
        for index, value in enumerate(self.values, self.start):
            if index in failures:
                continue
            try:
                codec.check(value)
            except codec.Unstorable as error:
                failures[index] = failure_of(error, self._attempt)
        self.failures = dict(sorted(failures.items()))
