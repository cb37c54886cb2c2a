"""A server to keep ledgers on: the one that a URL names, or the embedded one of this machine."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from piecework.patience import Patience
from piecework.server import ServerFacts, check, connect
from piecework_producer.embedded import EmbeddedServer
from piecework_producer.settings import ServerSettings

T = TypeVar("T")


class Session:
    """An open connection to a server that has been found fit; ends the use of the embedded one on `close`."""

    def __init__(
        self,
        redis_url: str | None = None,
        state_dir: Path | None = None,
        patience_seconds: float = 60.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`redis_url` None: the embedded server of `state_dir` (default: as `ServerSettings` has it).

        Raises `ServerUnusable` if it cannot be reached, started, or used; `UsageError` for a bad URL.
        """
        self.state_dir = state_dir or ServerSettings().state_dir
        self._embedded: EmbeddedServer | None = None
        if redis_url is None:
            self._embedded = EmbeddedServer(self.state_dir)
            self._embedded.__enter__()
            redis_url = self._embedded.url
        self.url = redis_url
        """With its password, if it has one: never to be shown."""
        try:
            self.client: Redis = connect(redis_url)
            self.facts: ServerFacts = check(self.client)
        except BaseException:
            self.close()
            raise
        self._patience = Patience(patience_seconds, self.client, say, wait=self._wait)

    @property
    def embedded(self) -> bool:
        """Whether the server is the embedded one."""
        return self._embedded is not None

    def lasting(self, call: Callable[[], T]) -> T:
        """Make a call to the server, again until it succeeds; an embedded one that died is started again on its data.

        `call` must be safe to repeat. Raises `ServerLost` after the patience, `ServerUnusable` if the embedded one
        cannot be started.
        """
        return self._patience(call)

    def revive(self) -> None:
        """Wait until the server answers again. Raises as `lasting`."""
        self.lasting(self.client.ping)

    def _wait(self, seconds: float) -> None:
        if self._embedded is not None:
            self._embedded.ensure()
        time.sleep(seconds)

    def close(self) -> None:
        """Safe to repeat."""
        client: Redis | None = getattr(self, "client", None)
        if client is not None:
            with suppress(RedisError):  # a broken connection is closed enough
                client.close()
        if self._embedded is not None:
            embedded, self._embedded = self._embedded, None
            embedded.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
