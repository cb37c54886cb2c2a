"""Turns errors into one line on standard error and an exit code of the design's table."""

import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, ParamSpec, TypeVar

import typer
from redis.exceptions import RedisError

from piecework.errors import CorruptData, PieceworkError, ServerLost
from piecework.states import ProducerExit, WorkerExit
from piecework_producer.run import RunVanished

P = ParamSpec("P")
T = TypeVar("T")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class OutputLost(PieceworkError):
    """What was to be written cannot be: disk full, say."""


def exit_code(error: Exception) -> int:
    """The exit code of a command that ends with this error."""
    if isinstance(error, ServerLost | TimeoutError):
        return ProducerExit.TIMED_OUT
    if isinstance(error, PieceworkError) and not isinstance(error, RunVanished | CorruptData | OutputLost):
        return ProducerExit.USAGE
    return ProducerExit.RUN_FAILED


def plain(text: str) -> str:
    """The text without what a terminal would obey: reasons and messages come from handlers and servers."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str) -> None:
    """A line on standard error. That nobody can read it any more is no reason to end a run."""
    with suppress(OSError, AttributeError):  # None: closed by the shell
        sys.stderr.write(f"piecework: {plain(text)}\n")
        sys.stderr.flush()


def end_on_signals() -> None:
    """SIGTERM, and the terminal that goes away, do what Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """A verb whose expected errors become a message and an exit code; others are bugs and show their traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            returned = command(*args, **kwargs)
            _flush()
            return returned
        except typer.Exit as exit_:
            raise typer.Exit(_flushed_or(exit_.exit_code)) from None
        except BrokenPipeError:
            raise typer.Exit(_nobody_reads()) from None
        except (PieceworkError, RedisError, TimeoutError) as error:
            say(f"error: {error}")
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(ProducerExit.INTERRUPTED) from None
        except OSError as error:  # disk full, no permission: what Python says is what there is to say
            _discard_output()
            say(f"error: {error}")
            raise typer.Exit(ProducerExit.RUN_FAILED) from None
        except Exception:
            traceback.print_exc()
            say("error: this is a bug of piecework; please report it with the lines above")
            raise typer.Exit(WorkerExit.BUG) from None

    return wrapped


def _flush() -> None:
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output()
            raise OutputLost(f"standard output cannot be written: {error.strerror}") from None


def _flushed_or(code: int) -> int:
    try:
        _flush()
    except BrokenPipeError:
        return _nobody_reads()
    except OutputLost as error:
        say(f"error: {error}")
        return exit_code(error)
    return code


def _nobody_reads() -> int:
    _discard_output()
    return ProducerExit.INTERRUPTED


def flush_or_discard() -> None:
    """At the very end: what cannot be written would make Python exit with 120 instead."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        _discard_output()


def _discard_output() -> None:
    """Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
