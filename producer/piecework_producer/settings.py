"""The producer's settings: options, then PIECEWORK_… in the environment, then defaults. Read once for each command."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from piecework.errors import UsageError
from piecework.items import parse_range
from piecework.keys import checked_run_id
from piecework.ledger import KEEP_SECONDS, LEASE_SECONDS
from piecework.quantity import item_memory_bytes
from piecework.records import budget, handler_text
from piecework.settings import server_url
from piecework_producer.embedded import default_state_dir

Settings = TypeVar("Settings", bound="ServerSettings")


def _as_value_error(check: Callable[[str], object]) -> AfterValidator:
    """A check that raises `UsageError`, for pydantic, which collects only `ValueError`."""

    def checked(text: str) -> str:
        try:
            check(text)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(checked)


RunId = Annotated[str, _as_value_error(checked_run_id)]
MaxFailures = Annotated[str, _as_value_error(budget)]
ItemMemory = Annotated[str, _as_value_error(item_memory_bytes)]
RangeText = Annotated[str, _as_value_error(parse_range)]


class ServerSettings(BaseSettings):
    """Where the ledger is kept."""

    model_config = SettingsConfigDict(env_prefix="PIECEWORK_", env_ignore_empty=True, frozen=True, extra="ignore")

    redis: str | None = None
    redis_password: str | None = None
    redis_tls_dir: Path | None = None
    state_dir: Path = Field(default_factory=lambda: default_state_dir(os.environ))

    @property
    def redis_url(self) -> str | None:
        """The server's URL, password included: never to be shown. None: the embedded server.

        Raises `UsageError`.
        """
        return None if self.redis is None else server_url(self.redis, self.redis_password, self.redis_tls_dir)


class ClusterSettings(ServerSettings):
    """Which cluster, and which of its namespaces."""

    on: Literal["local", "kubernetes"] | None = None
    context: str | None = None
    namespace: str | None = None
    kubeconfig: Path | None = None
    start_timeout: float = Field(0.0, ge=0)
    """Seconds after which `wait` gives up on workers that cannot start for a known reason; 0: never."""


class RetrySettings(ServerSettings):
    """With how many workers a run is drained that was submitted before."""

    parallelism: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=100_000)


class RunSettings(RetrySettings):
    """How a run is submitted, and how its workers run. Times are in seconds; None: decided by the run."""

    run: RunId | None = None
    handler: str | None = None
    exec: str | None = None
    shell: bool = False
    stdin: bool = False
    batch: bool = False
    batch_size: int | None = Field(None, ge=1)
    concurrency: int = Field(1, ge=1)
    chunk_size: int | None = Field(None, ge=1)
    retries: int = Field(0, ge=0, le=10_000)
    item_timeout: float | None = Field(None, gt=0)
    item_memory: ItemMemory | None = None
    max_failures: MaxFailures | None = None
    crash_limit: int = Field(3, ge=1, le=1000)
    isolation: Literal["process", "none"] = "process"
    lease: float = Field(LEASE_SECONDS, ge=1)
    patience: float = Field(60.0, ge=0)
    grace: float = Field(20.0, ge=0)
    wait_replicas: int = Field(0, ge=0)
    speculate: bool = False
    keep: int = Field(KEEP_SECONDS, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if (self.handler is None) == (self.exec is None):
            yield "give either a HANDLER (package.module:function) or --exec 'COMMAND {}'"
        if self.handler is not None and not all(self.handler.partition(":")):
            yield f"HANDLER {self.handler!r} is not of the form package.module:function"
        if (self.shell or self.stdin) and self.exec is None:
            yield "--shell and --stdin go with --exec"
        if self.batch and self.exec is not None:
            yield "--batch goes with a HANDLER, not with --exec"
        if self.batch_size is not None and not self.batch:
            yield "--batch-size goes with --batch"
        if self.isolation == "none" and self.exec is not None:
            yield "--exec needs --isolation process: only so the command ends with its worker"
        if self.isolation == "none" and self.item_timeout is not None:
            yield "--item-timeout needs --isolation process: only a process of its own can be ended"
        if self.isolation == "none" and self.item_memory is not None:
            yield "--item-memory needs --isolation process: only there an item that meets it can be left behind"

    @property
    def handler_text(self) -> str:
        """The handler as the specification names it."""
        return handler_text(self.handler, self.exec, self.shell)

    def worker_arguments(self) -> tuple[str, ...]:
        """The options of `piecework-worker` that make workers of this run."""
        options: list[str] = []
        if self.handler is not None:
            options += ["--handler", self.handler]
        if self.exec is not None:
            options += [f"--exec={self.exec}"]
        options += [f"--{name}" for name in ("shell", "stdin", "batch", "speculate") if getattr(self, name)]
        limits = ("item_timeout", "item_memory", "lease", "patience", "grace")
        for name in ("batch_size", "concurrency", "isolation", *limits):
            if getattr(self, name) is not None:
                options += [f"--{name.replace('_', '-')}", f"{getattr(self, name)}"]
        if self.wait_replicas:
            options += ["--wait-replicas", f"{self.wait_replicas}"]
        return tuple(options)


class CommandSettings(RunSettings):
    """What `run` and `submit` ask besides: the items, and where results go."""

    range: RangeText | None = None
    lines: str | None = None
    jsonl: str | None = None
    results: str = "-"
    reduce: str | None = None

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        given = [f"--{name}" for name in ITEMS if getattr(self, name) is not None]
        if not given:
            yield "no items: give one of --range 0:1000, --lines FILE, --jsonl FILE (- for standard input)"
        elif len(given) > 1:
            yield f"{' and '.join(given)} exclude each other"


ITEMS = ("range", "lines", "jsonl")


def read(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings from the options that were given and the environment. Raises `UsageError` with all problems.

    Items that were given take the place of any in the environment.
    """
    values = {name: value for name, value in given.items() if value is not None}
    if any(name in values for name in ITEMS):
        values = dict.fromkeys(ITEMS) | values
    problems: list[str] = []
    try:
        return kind(**values)
    except ValidationError as error:
        wrong = error.errors()
        problems += [_problem(each) for each in wrong]
    # What does not fit together is only looked for when each value is right: so make them right.
    names = {str(each["loc"][0]) for each in wrong if each["loc"]}
    if names:
        fields = kind.model_fields
        right = {name: fields[name].get_default(call_default_factory=True) for name in names}
        if "range" in right:
            right["range"] = "0:0"
        try:
            kind(**values | right)
        except ValidationError as error:
            problems += [_problem(each) for each in error.errors()]
    raise UsageError("; ".join(problems))


def _problem(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    if error["type"] == "value_error":  # ours: it names the option and the value
        return message
    name = str(error["loc"][0])
    return f"--{name.replace('_', '-')} (PIECEWORK_{name.upper()}): {message}, not {error['input']!r}"


def environment() -> Mapping[str, str]:
    """The environment that workers inherit."""
    return os.environ
