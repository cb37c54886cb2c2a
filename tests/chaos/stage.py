"""Where a scenario plays: a server on disk, proxies before it, a run, its workers, and the faults that are due.

All of it is drawn from one seed, so that the same seed has the same pile and the same faults in the same order; when
exactly a process is hit is up to the machine.
"""

import contextlib
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from piecework.audit import audit
from piecework.errors import PieceworkError
from piecework.ledger import Ledger
from tests.chaos.crew import Crew
from tests.chaos.oracle import Examined, examine
from tests.chaos.proxy import Proxy
from tests.chaos.rights import refused, write_users
from tests.chaos.work import Work
from tests.server_fixture import ServerProcess, eventually, free_port
from tests.worker_fixture import Pile, WorkerProcess, marked

_SITE = Path(__file__).parent / "site"
_ENDS_WITHIN_SECONDS = 60.0
_LEAVES_WITHIN_SECONDS = 20.0


def with_site(**environ: str) -> dict[str, str]:
    """The environment of a process that loads `sitecustomize.py`, see there."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(_SITE), *([before] if before else [])]), **environ}


class Stage:
    """One scenario. Use it in a `with`; whatever it started has ended then."""

    def __init__(self, seed: str, directory: Path, *, small: bool = False) -> None:
        self.rng = random.Random(seed)
        self.directory = directory
        self.work = Work.draw(self.rng, small)
        self.faults = 1 if small else self.rng.randint(2, 6)
        """How many faults there are to be."""
        self._small = small
        self.happened = 0
        """How many faults there were before the run was over, without those at calls."""
        self.environs: list[Callable[[], dict[str, str]]] = []
        """What a worker's environment has on top."""
        self.problems: list[str] = []
        self.examined: Examined | None = None
        """If the run was on another server than the stage's."""
        self.clock = directory / "clock"
        self.forgets = False
        """Whether the server has lost what it had acknowledged."""
        self._mark = f"CHAOS_STAGE={uuid.uuid4().hex}"
        self.stuck_seconds = 2.0
        """When nothing has moved for so long, the next fault is due, too."""
        self._tokens = 0
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._ends = contextlib.ExitStack()
        self._users = write_users(directory)
        self.port = free_port()
        self.server = self._ends.enter_context(self.new_server(self.port))
        self.proxies = [Proxy(self.server.socket, self.rng) for _ in range(2)]
        for proxy in self.proxies:
            self._ends.callback(proxy.close)
        self.pile = Pile(self.server, directory)
        self._watch = self._watcher()
        self._most, self._moved_at = 0, 0.0
        self.crew: Crew = Crew(0, self._start, self.rng)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.crew.destroy()
        for pid in marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._ends.close()

    # --- what there is

    @property
    def ledger(self) -> Ledger:
        return self.pile.ledger

    def _watcher(self) -> Ledger:
        """What is asked all the time: a server that is silent holds nobody up."""
        return Ledger(self.server.client(socket_timeout=0.3), self.pile.run)

    @property
    def recorded(self) -> int | None:
        """How many items are recorded; None: the server does not tell."""
        try:
            status = self._watch.status()
        except (RedisError, PieceworkError):
            return None
        return status.done + status.failed

    def is_over(self) -> bool | None:
        """None: the server does not tell."""
        try:
            return self._watch.status().state.over
        except (RedisError, PieceworkError):
            return None

    def environ(self) -> dict[str, str]:
        """What all that is started for this scenario has in its environment."""
        name, _, value = self._mark.partition("=")
        return {name: value, **self.work.environ}

    def _start(self, number: int) -> WorkerProcess:
        environ = self.environ()
        for more in self.environs:
            environ |= more()
        url = self.proxies[number % len(self.proxies)].url
        return self.pile.worker(*self.work.options, url=url + self.work.url_options, environ=environ)

    def new_server(self, port: int, *options: str) -> ServerProcess:
        """A server with an append-only file, with the users and rights that it has on a cluster."""
        mine = ("--appendonly", "yes", "--bind", "127.0.0.1", "--port", str(port), "--aclfile", str(self._users))
        return ServerProcess(*mine, "--repl-diskless-sync-delay", "0", *options)

    def move_to(self, server: ServerProcess, port: int) -> None:
        """All clients go to another server from now on, which is stopped at the end."""
        self._ends.push(server)
        self.server, self.port = server, port
        self.pile.move_to(server)
        self._watch = self._watcher()
        for proxy in self.proxies:
            proxy.upstream = server.socket
            proxy.reset()

    # --- what happens

    def dying_at(self, place: str) -> dict[str, str]:
        """What the environment of a process has that is to die at a place: `after:commit:2:SIGKILL:horse`, say.

        Several, with `;`: at the first that is reached.
        """
        self._tokens += 1
        token = self.directory / f"token-{self._tokens}"
        token.touch()
        return with_site(CHAOS_FAULTS=";".join(f"{each}:{token}" for each in place.split(";")))

    @property
    def died_at(self) -> list[str]:
        """Where processes did: `after commit`, say."""
        return [token.name.partition(" ")[2] for token in self.directory.glob("token-* *")]

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Do this so many seconds from now."""
        self._due.append((time.monotonic() + seconds, action))

    def play(self, faults: Sequence[Callable[["Stage"], None]]) -> None:
        """Start workers, let each fault happen when its share of the items is recorded, and wait for the end."""
        size = 2 if self._small else self.rng.choice([2, 2, 3])
        self.crew = Crew(size, self._start, self.rng)
        share = self.work.total / (len(faults) + 1)
        for number, fault in enumerate(faults):
            self._until(lambda needed=number * share: self._has_recorded(needed))  # type: ignore[misc]
            self.happened += self.is_over() is not True
            fault(self)
        self._until(lambda: not self._due and self.is_over() is True, _ENDS_WITHIN_SECONDS, "the run ends")
        self._until(lambda: not self.crew.running, _LEAVES_WITHIN_SECONDS, "the workers leave by themselves")

    def _has_recorded(self, needed: float) -> bool:
        recorded, now = self.recorded, time.monotonic()
        if recorded is None:
            return False
        if recorded < self._most and not self.forgets:
            self.problems.append(f"{self._most} items were recorded, and then {recorded}")
        if recorded != self._most:
            self._most, self._moved_at = recorded, now
        return recorded > needed or now - self._moved_at > self.stuck_seconds or self.is_over() is True

    def _until(self, reached: Callable[[], bool], within: float = _ENDS_WITHIN_SECONDS, message: str = "") -> None:
        """Look after the workers, and do what is due, until something is reached."""
        self._moved_at = time.monotonic()

        def look() -> bool:
            for due in [due for due in self._due if due[0] <= time.monotonic()]:
                self._due.remove(due)
                due[1]()
            self.crew.look_after(self.is_over)
            return reached()

        eventually(look, within, message)

    # --- what is found

    def why(self) -> list[str]:
        """What may be the reason that the run does not end, as far as anybody can tell."""
        told = self.crew.problems + self.problems
        with contextlib.suppress(RedisError, PieceworkError):
            told += [f"audit: {finding.text}" for finding in audit(self.ledger).findings]
        return told

    def examine(self) -> Examined:
        """What the oracles say of the run, and of what is left of its processes."""
        eventually(lambda: not marked(self._mark), 5.0, "no process is left")
        found = self.examined or examine(self.pile.client, self.pile.run, self.work)
        found.problems += self.crew.problems + self.problems + refused(self.pile.client)
        return found
