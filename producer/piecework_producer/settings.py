"""The producer's settings: options, then PIECEWORK_… in the environment, then defaults. Read once for each command."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from piecework.errors import UsageError
from piecework.keys import checked_run_id
from piecework.ledger import KEEP_SECONDS, LEASE_SECONDS
from piecework.records import handler_text
from piecework.settings import with_password
from piecework_producer.embedded import default_state_dir

Settings = TypeVar("Settings", bound="ServerSettings")
RunId = Annotated[str, AfterValidator(checked_run_id)]


class ServerSettings(BaseSettings):
    """Where the ledger is kept."""

    model_config = SettingsConfigDict(env_prefix="PIECEWORK_", frozen=True, extra="ignore")

    redis: str | None = None
    redis_password: str | None = None
    state_dir: Path = Field(default_factory=lambda: default_state_dir(os.environ))

    @property
    def redis_url(self) -> str | None:
        """The server's URL, password included: never to be shown. None: the embedded server."""
        return None if self.redis is None else with_password(self.redis, self.redis_password)


class RunSettings(ServerSettings):
    """How a run is submitted, and how its workers run. Times are in seconds; None: decided by the run."""

    run: RunId | None = None
    handler: str | None = None
    exec: str | None = None
    shell: bool = False
    stdin: bool = False
    batch: bool = False
    batch_size: int | None = Field(None, ge=1)
    concurrency: int = Field(1, ge=1)
    parallelism: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=100_000)
    chunk_size: int | None = Field(None, ge=1)
    retries: int = Field(0, ge=0, le=10_000)
    item_timeout: float | None = Field(None, gt=0)
    max_failures: str | None = None
    crash_limit: int = Field(3, ge=1, le=1000)
    isolation: Literal["process", "none"] = "process"
    lease: float = Field(LEASE_SECONDS, ge=1)
    patience: float = Field(60.0, ge=0)
    grace: float = Field(20.0, ge=0)
    keep: int = Field(KEEP_SECONDS, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.handler is None) == (self.exec is None):
            raise ValueError("give either a HANDLER (package.module:function) or --exec 'COMMAND {}'")
        if self.handler is not None and ":" not in self.handler:
            raise ValueError(f"HANDLER {self.handler!r} is not of the form package.module:function")
        if (self.shell or self.stdin) and self.exec is None:
            raise ValueError("--shell and --stdin go with --exec")
        if self.batch and self.exec is not None:
            raise ValueError("--batch goes with a HANDLER, not with --exec")
        if self.batch_size is not None and not self.batch:
            raise ValueError("--batch-size goes with --batch")
        if self.isolation == "none" and self.item_timeout is not None:
            raise ValueError("--item-timeout needs --isolation process: only a process of its own can be ended")
        return self

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
        options += [f"--{name}" for name in ("shell", "stdin", "batch") if getattr(self, name)]
        for name in ("batch_size", "concurrency", "isolation", "item_timeout", "lease", "patience", "grace"):
            if getattr(self, name) is not None:
                options += [f"--{name.replace('_', '-')}", f"{getattr(self, name)}"]
        return tuple(options)


def read(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings from the options that were given and the environment. Raises `UsageError` with all problems."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UsageError("; ".join(_problem(each) for each in error.errors())) from None


def _problem(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    return f"--{name.replace('_', '-')} (PIECEWORK_{name.upper()}): {message}, not {error['input']!r}"


def environment() -> Mapping[str, str]:
    """The environment that workers inherit."""
    return os.environ
