"""The worker's settings: command line, then PIECEWORK_… in the environment, then defaults. Read in main."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from piecework.errors import UsageError
from piecework.keys import checked_run_id
from piecework.ledger import LEASE_SECONDS
from piecework.quantity import item_memory_bytes
from piecework.records import handler_text
from piecework.settings import server_url


def _size(text: str) -> str:
    try:
        item_memory_bytes(text)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return text


class WorkerSettings(BaseSettings):
    """One worker's settings; times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="PIECEWORK_", frozen=True, extra="ignore")

    run: str
    redis: str
    redis_password: str | None = None
    redis_tls_dir: Path | None = None
    handler: str | None = None
    exec: str | None = None
    shell: bool = False
    stdin: bool = False
    batch: bool = False
    batch_size: int | None = Field(None, ge=1)
    concurrency: int = Field(1, ge=1)
    isolation: Literal["process", "none"] = "process"
    item_timeout: float | None = Field(None, gt=0)
    item_memory: Annotated[str, AfterValidator(_size)] | None = None
    lease: float = Field(LEASE_SECONDS, ge=1)
    patience: float = Field(60.0, ge=0)
    grace: float = Field(20.0, ge=0)
    wait_replicas: int = Field(0, ge=0)
    speculate: bool = False
    name: str | None = None
    parent: int | None = None
    scheduled_time: datetime | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems(cls, given: dict[str, object], check: ModelWrapValidatorHandler[Self]) -> Self:
        """Raises `UsageError` with all problems: of single settings, and of those that do not go together."""
        problems: list[str] = []
        try:
            settings = check(given)
        except ValidationError as error:
            problems = [_problem(each) for each in error.errors()]
            wrong = {each["loc"][0] for each in error.errors() if each["loc"]}
            rest = {name: value for name, value in given.items() if name not in wrong}
            settings = check({"run": "unknown", "redis": "unknown"} | rest)
        problems += settings._inconsistencies()
        if problems:
            raise UsageError("; ".join(problems))
        return settings

    def _inconsistencies(self) -> list[str]:
        found = {
            "give either --handler package.module:function or --exec 'COMMAND {}'": (
                (self.handler is None) == (self.exec is None)
            ),
            "--shell and --stdin go with --exec": (self.shell or self.stdin) and self.exec is None,
            "--batch and --concurrency go with --handler": (
                (self.batch or self.concurrency > 1) and self.exec is not None
            ),
            "--batch-size goes with --batch": self.batch_size is not None and not self.batch,
            "--exec needs --isolation process: a command has to end with its worker": (
                self.isolation == "none" and self.exec is not None
            ),
            "--item-timeout needs --isolation process: only a process of its own can be ended": (
                self.isolation == "none" and self.item_timeout is not None
            ),
            "--item-memory needs --isolation process: only there an item that meets it can be left behind": (
                self.isolation == "none" and self.item_memory is not None
            ),
            "--item-memory needs Linux: elsewhere the kernel does not keep to such a limit": (
                sys.platform != "linux" and self.item_memory is not None
            ),
        }
        problems = [problem for problem, is_one in found.items() if is_one]
        try:
            checked_run_id(self.run)
        except UsageError as error:
            problems.insert(0, str(error))
        return problems

    @property
    def redis_url(self) -> str:
        """The server's URL, password included: never to be shown. Raises `UsageError`."""
        return server_url(self.redis, self.redis_password, self.redis_tls_dir)

    @property
    def handler_text(self) -> str:
        """The handler as the run's specification names it."""
        return handler_text(self.handler, self.exec, self.shell)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see piecework-worker --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="piecework-worker",
        description="Drain one run and exit with a code that says why.",
        epilog="exit codes: 0 the run is drained · 65 it failed or was cancelled · 75 handed back, not over "
        "· 78 can never work (settings, handler, unknown run) · 70 a bug\n\n"
        "example: piecework-worker nightly --handler mypkg.tasks:convert --redis redis://localhost:6379",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="id of the run (PIECEWORK_RUN)")
    add("--redis", metavar="URL", help="redis://, rediss:// or unix:// (PIECEWORK_REDIS); "
        "a password may come apart, in PIECEWORK_REDIS_PASSWORD")  # fmt: skip
    add(
        "--handler",
        metavar="M:F",
        help="package.module:function (PIECEWORK_HANDLER, and so on for each option)",
    )
    add("--exec", metavar="CMD", help="a command with {} for the item, instead of a handler")
    add("--shell", action="store_true", help="run the command with /bin/sh")
    add("--stdin", action="store_true", help="give the command each item on standard input, as JSON")
    add("--batch", action="store_true", help="the handler takes a list of items and returns as many results")
    add("--batch-size", metavar="N", help="most items in such a list (default: about 0.25 s of work)")
    add("--concurrency", metavar="K", help="items at once, for an async handler (default 1)")
    add("--isolation", metavar="process|none", help="a forked process for each chunk (default), or none")
    add("--item-timeout", metavar="S", help="end an item that takes longer; it counts as failed")
    add("--item-memory", metavar="SIZE", help="most memory for an item, such as 512M; one that needs more failed")
    add(
        "--lease",
        metavar="S",
        help="how long a chunk stays this worker's without a sign of life (default 15)",
    )
    add("--patience", metavar="S", help="how long Redis may be away (default 60)")
    add("--grace", metavar="S", help="time for the item in hand after SIGTERM (default 20)")
    add("--wait-replicas", metavar="N", help="what is recorded counts when N replicas of Redis have it (default 0)")
    add("--speculate", action="store_true", help="when idle, redo an item that takes another worker far longer")
    add("--name", help="name of the worker (default: its host and a random number)")
    add("--parent", metavar="PID", help="hand back when this process, the launcher, is gone")
    return parser


def parse(argv: Sequence[str]) -> WorkerSettings:
    """Settings from a command line and the environment. Raises `UsageError` with all problems together."""
    given = vars(_parser().parse_args(argv))
    return WorkerSettings(**given)


def _problem(error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    option = "RUN" if name == "run" else f"--{name.replace('_', '-')}"
    if error["type"] == "missing":
        return f"{option} is missing (or PIECEWORK_{name.upper()} in the environment)"
    if error["type"] == "value_error":  # ours: it names the option and the value
        return error["msg"].removeprefix("Value error, ")
    return f"{option} (PIECEWORK_{name.upper()}): {error['msg']}, not {error['input']!r}"


def environment() -> Mapping[str, str]:
    """The environment that commands inherit."""
    return os.environ
