"""Turns errors into one line on standard error and an exit code of the design's table."""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from redis.exceptions import RedisError

from piecework.errors import PieceworkError, ServerLost, UsageError
from piecework.states import ProducerExit

P = ParamSpec("P")
T = TypeVar("T")


def exit_code(error: Exception) -> int:
    """The exit code of a command that ends with this error."""
    if isinstance(error, ServerLost | TimeoutError):
        return ProducerExit.TIMED_OUT
    if isinstance(error, UsageError | PieceworkError):
        return ProducerExit.USAGE
    return ProducerExit.RUN_FAILED


def say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"piecework: {text}\n")
    sys.stderr.flush()


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """A verb whose expected errors become a message and an exit code; others are bugs and show their traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (PieceworkError, RedisError, TimeoutError) as error:
            say(f"error: {error}")
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:
            # Whoever read our output has left; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ProducerExit.INTERRUPTED) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(ProducerExit.INTERRUPTED) from None

    return wrapped
