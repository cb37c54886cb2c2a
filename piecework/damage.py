"""What is read back from Redis may be anything: whoever may write to the server can put it there, and disks fail.

All reading goes through `reading`, so that damage is one named error, `CorruptData`, with the place, and nothing that
was read is believed to have the type, or the form, that piecework wrote.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from redis.exceptions import ResponseError

from piecework.errors import CorruptData, PieceworkError
from piecework.patience import is_away, is_refusal

_NOT_OURS = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, msgspec.MsgspecError)
_REPLY = re.compile(
    r"WRONGTYPE|user_script:\d+: |user_script:\d+\.$|not an integer|not a valid float|not a float|would produce"
)
"""A key of another type, or a script that met what it cannot count with."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise `CorruptData` naming `what` for a reply that is not what piecework wrote, or says that a key is not."""
    try:
        yield
    except PieceworkError:
        raise
    except _NOT_OURS as error:
        raise _corrupt(what, error) from None
    except ResponseError as error:
        if is_away(error) or is_refusal(error) or not _REPLY.search(str(error)):
            raise
        raise _corrupt(what, error) from None


def _corrupt(what: str, error: Exception) -> CorruptData:
    said = " ".join(str(error).split())[:200]
    return CorruptData(f"{what}: what the server holds is damaged ({type(error).__name__}: {said})")
