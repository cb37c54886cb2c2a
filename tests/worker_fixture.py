"""Runs and real workers for a test: submit through the ledger, start `piecework-worker`, look on.

Everything that a `Pile` starts is killed at its end; what it has on the server is deleted, and that nothing
stays is checked then.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import redis
from rq.job import Job
from rq.serializers import JSONSerializer

from piecework import codec
from piecework.errors import UnknownRun
from piecework.keys import job_id, queue_name
from piecework.ledger import Ledger
from piecework.records import Failure, Spec, Status, to_failure
from piecework.spans import indices, parse_spans
from piecework.states import State
from piecework_worker.chunk import NAME
from tests.server_fixture import ServerProcess, eventually

ROOT = Path(__file__).parent.parent
HANDLERS = "tests.handlers_for_tests"
Outcome = Any


class WorkerProcess:
    """A `piecework-worker` in a session of its own; its words go to a file."""

    def __init__(self, arguments: Sequence[str], directory: Path, environ: Mapping[str, str], cwd: Path) -> None:
        self.log_file = directory / "log"
        self.termination_log = directory / "termination-log"
        self.termination_log.touch()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PIECEWORK_", "RQ_"))}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "piecework_worker.main", *arguments],
                cwd=cwd,
                env=inherited | {"PIECEWORK_TERMINATION_LOG": str(self.termination_log), **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def last_line(self) -> str:
        return self.log.rstrip("\n").rpartition("\n")[2]

    def exit_code(self, within: float = 15.0) -> int:
        """Wait for its end. The last line, and the termination log, must say the code and why."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end within {within:g} s:\n{self.log}") from None
        if code >= 0:
            assert self.last_line.startswith(f"piecework-worker: exit {code} ("), self.log
            assert self.log.count("piecework-worker: exit") == 1, self.log
            assert self.termination_log.read_text() == self.last_line + "\n"
        return code

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def horse(self) -> int:
        """Pid of its horse, as soon as there is one."""
        return eventually(lambda: next(iter(children(self.pid)), 0), message=f"a horse\n{self.log}")

    def destroy(self) -> None:
        """SIGKILL to it and to all that it started."""
        pids = [self.pid, *descendants(self.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Pile:
    """One run on a server, and its workers."""

    def __init__(self, server: ServerProcess, directory: Path, run: str | None = None) -> None:
        self.server, self.directory = server, directory
        self.run = run or f"t{uuid.uuid4().hex[:12]}"
        self.client = server.client()
        self.ledger = Ledger(self.client, self.run)
        self.workers: list[WorkerProcess] = []
        self._spec: Spec | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.destroy()
        if kind is not None:
            for worker in self.workers:
                sys.stderr.write(f"--- worker {worker.pid}\n{worker.log}\n")
            return
        with contextlib.suppress(redis.ConnectionError):
            self.ledger.delete()
            left = [key for key in self.client.scan_iter() if self.run.encode() in key and not self.temporary(key)]
            assert left == []

    def move_to(self, server: ServerProcess) -> None:
        """Look at the run, and begin workers, on another server from now on."""
        self.server, self.client = server, server.client()
        self.ledger = Ledger(self.client, self.run)

    def temporary(self, key: bytes) -> bool:
        """Whether it is one of RQ's keys that a killed worker leaves behind, with a time to live."""
        return b":execution" in key and self.client.ttl(key) > 0

    def submit(
        self,
        handler: str,
        total: int,
        chunk: int,
        *,
        items: Sequence[Any] | None = None,
        budget: tuple[float, bool] | None = None,
        block: int = 1000,
        seal: bool = True,
        **spec: Any,
    ) -> Self:
        """Make the run: `total` items of a range, or `items`, in chunks of `chunk`."""
        if not handler.startswith(("exec:", "shell:")) and ":" not in handler:
            handler = f"{HANDLERS}:{handler}"
        self._spec = Spec(handler=handler, items="range" if items is None else "jsonl", **spec)
        self.ledger.open(self._spec, self.job(0).to_dict(), 3600)
        if items is None:
            self.ledger.fill(0, total, b"", "")
        else:
            for first in range(0, total, block):
                part = items[first : first + block]
                self.ledger.fill(first, len(part), codec.pack(part), "")
        self.ledger.cut(chunk)
        if seal:
            self.ledger.seal(total, budget)
        return self

    def find(self) -> bool:
        """Take up a run that somebody else has submitted; False if nobody has."""
        with contextlib.suppress(UnknownRun):
            self._spec = self.ledger.spec()
        return self._spec is not None

    def job(self, chunk: int) -> Job:
        """The RQ job that delivers a chunk."""
        return Job.create(
            NAME,
            id=job_id(self.run, chunk),
            connection=self.client,
            serializer=JSONSerializer,
            timeout=-1,
            result_ttl=0,
            origin=queue_name(self.run),
            status="queued",  # type: ignore[arg-type]
            description=f"chunk of {self.run}",
        )

    def worker(
        self,
        *options: str,
        cwd: Path = ROOT,
        url: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> WorkerProcess:
        """Start a worker with the run's handler; short lease, grace and patience unless told otherwise."""
        spec = self._spec
        arguments = [self.run, "--redis", url or self.server.url]
        if spec is not None:
            kind, _, text = spec.handler.partition(":")
            if kind in ("exec", "shell"):
                arguments += ["--exec", text, *(["--shell"] if kind == "shell" else [])]
            else:
                arguments += ["--handler", spec.handler]
            arguments += ["--batch"] * spec.batch + ["--stdin"] * spec.stdin
        for option, value in (("--lease", "2"), ("--grace", "5"), ("--patience", "5")):
            arguments += [] if option in options else [option, value]
        directory = self.directory / f"worker-{len(self.workers)}"
        directory.mkdir()
        started = WorkerProcess([*arguments, *options], directory, environ or {}, cwd)
        self.workers.append(started)
        return started

    def drained(self, *options: str, workers: int = 1, within: float = 15.0, **environ: str) -> Status:
        """Run workers to the end; they must all exit 0. Returns the status."""
        started = [self.worker(*options, environ=environ) for _ in range(workers)]
        deadline = time.monotonic() + within
        for each in started:
            code = each.exit_code(deadline - time.monotonic())
            assert code == 0, each.log
        return self.status

    @property
    def status(self) -> Status:
        return self.ledger.status()

    @property
    def recorded(self) -> int:
        """Number of items that have a result or a failure."""
        return self.status.done + self.status.failed

    def wait_recorded(self, number: int, within: float = 10.0) -> None:
        """Until so many items are recorded."""
        eventually(lambda: self.recorded >= number, within, f"{number} items recorded")

    def wait_state(self, state: State, within: float = 10.0) -> None:
        eventually(lambda: self.status.state is state, within, f"state {state}")

    def entries(self, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """All entries of one of the run's streams."""
        return cast(list[tuple[bytes, dict[bytes, bytes]]], self.client.xrange(stream))

    def outcomes(self) -> dict[int, Outcome]:
        """What is recorded for each item, a value or a `Failure`. Fails if an item is there twice."""
        found: dict[int, Outcome] = {}
        for stream in (self.ledger.keys.results, self.ledger.keys.failures):
            for entry, fields in self.entries(stream):
                spans = list(indices(parse_spans(fields[b"s"].decode(), "test")))
                values = codec.unpack(fields[b"d"], f"{stream} {entry!r}")
                assert len(spans) == len(values)
                assert not found.keys() & set(spans), f"recorded twice: {found.keys() & set(spans)}"
                if stream == self.ledger.keys.failures:
                    values = [to_failure(value, "test") for value in values]
                found.update(zip(spans, values, strict=True))
        return found

    def failures(self) -> dict[int, Failure]:
        return {i: each for i, each in sorted(self.outcomes().items()) if isinstance(each, Failure)}

    def results(self) -> dict[int, Any]:
        return {i: each for i, each in sorted(self.outcomes().items()) if not isinstance(each, Failure)}

    def events(self, kind: str) -> list[dict[str, str]]:
        """The events of one kind, oldest first."""
        entries = self.entries(self.ledger.keys.events)
        decoded = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]
        return [event for event in decoded if event["kind"] == kind]


def squares(total: int) -> dict[int, int]:
    return {i: i * i for i in range(total)}


def children(pid: int) -> list[int]:
    """Pids of a process's children that are alive."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split() if alive(int(child))]


def descendants(pid: int) -> list[int]:
    """Pids of all that a process started, and what these started."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def alive(pid: int) -> bool:
    """Whether there is such a process, and not as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """Pids of the processes, without this one, that have `NAME=value` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        with contextlib.suppress(OSError):
            if pid != os.getpid() and mark.encode() in path.read_bytes().split(b"\0") and alive(pid):
                found.append(pid)
    return found
