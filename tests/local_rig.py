"""The local launcher with workers that do nothing but wait to be ended: processes that know nothing of Redis."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from piecework_producer.launcher import WorkerPlan
from piecework_producer.local_launcher import LocalHooks, LocalLauncher

WORKER = """#!/bin/sh
# Exits as the file NAME.exit says; on SIGTERM with 75, unless there is a file `stubborn`.
run=$1
while [ $# -gt 0 ]; do
    [ "$1" = --name ] && name=$2
    shift
done
if [ -f stubborn ]; then trap '' TERM; else trap 'exit 75' TERM; fi
echo "worker of $run, redis at $PIECEWORK_REDIS, other: ${PIECEWORK_OTHER-none}"
echo $$ > "$name.up"
until [ -f "$name.exit" ]; do sleep 0.02; done
read code < "$name.exit"
echo "the last words of $name: exit $code"
[ "$code" -lt 0 ] && kill "$code" $$
exit "$code"
"""


class LocalRig:
    """A directory in which the workers tell that they are up, and are told how to end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reaped: list[str] = []
        self.away = False
        self._recorded = 0
        (directory / "worker").write_text(WORKER)

    def launcher(
        self,
        parallelism: int,
        backoff_limit: int = 20,
        *,
        grace: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> LocalLauncher:
        """A launcher for the one run of this rig."""
        return LocalLauncher(
            plan=WorkerPlan("r1", ("--handler", "m:f"), parallelism, grace),
            redis_url="unix:///secret",
            logs=self.directory / "logs",
            hooks=LocalHooks(self._reap, lambda: None if self.away else self._recorded),
            environ={**os.environ, "PIECEWORK_OTHER": "inherited"},
            backoff_limit=backoff_limit,
            command=("/usr/bin/env", "-C", str(self.directory), "sh", "worker"),
            clock=clock,
        )

    def _reap(self, worker: str) -> bool:
        if not self.away:
            self.reaped.append(worker)
        return not self.away

    def running(self) -> list[str]:
        return sorted(name for name in self._started() if self._is_alive(name))

    def end(self, worker: str, code: int) -> None:
        self._file(worker, "exit.tmp").write_text(f"{code}\n")
        self._file(worker, "exit.tmp").rename(self._file(worker, "exit"))

    def recorded(self) -> None:
        self._recorded += 1

    def log(self, slot: int) -> str:
        return (self.directory / "logs" / f"worker-{slot}.log").read_text()

    def _started(self) -> list[str]:
        return [path.stem for path in self.directory.glob("*.up") if path.stat().st_size]

    def _is_alive(self, worker: str) -> bool:
        try:
            stat = Path(f"/proc/{self._file(worker, 'up').read_text().strip()}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    def _file(self, worker: str, kind: str) -> Path:
        return self.directory / f"{worker}.{kind}"


@contextmanager
def local_rig() -> Iterator[LocalRig]:
    """The local launcher in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        yield LocalRig(Path(directory))
