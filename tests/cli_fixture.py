"""A person's machine: a directory with `tasks.py`, a state directory, and the commands that are typed there.

All that is started on a machine carries a mark in its environment, whoever started it, so that at its end the machine
can tell whether a process was left behind. Linux only, by `/proc`.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from typer.testing import CliRunner

from piecework_producer import embedded
from tests.server_fixture import eventually

HANDLERS = Path(__file__).parent / "cli_handlers.py"
SQUARES = [{"index": index, "item": index, "result": index * index} for index in range(20)]


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def run(self) -> str:
        """The id of the run that the command told of."""
        found = re.search(r"\brun ([a-z0-9-]+) (?:filling|running|succeeded|completed|failed|cancelled)", self.err)
        assert found, self.err
        return found[1]


def ask(*arguments: str, environ: Mapping[str, str], stdin: bytes = b"") -> Ended:
    """A command within this process, whose PIECEWORK_… variables are those of `environ` and no others."""
    from piecework_producer.cli.app import app

    none: Mapping[str, str | None] = {name: None for name in os.environ if name.startswith("PIECEWORK_")}
    ours = {name: value for name, value in environ.items() if name.startswith("PIECEWORK_")}
    ended = CliRunner().invoke(app, arguments, input=stdin, env={**none, **ours})
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


class Command:
    """A running `piecework …`, the leader of its process group as a terminal would start it."""

    def __init__(
        self,
        arguments: Sequence[str],
        machine: "Machine",
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
    ) -> None:
        number = len(list(machine.directory.glob("out-*")))
        self._out = machine.directory / f"out-{number}"
        self._err = machine.directory / f"err-{number}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "piecework_producer.cli", *arguments],
                cwd=machine.home,
                env=machine.environ,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=out if stdout is None else stdout,
                stderr=err if stderr is None else stderr,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def run(self) -> str:
        return Ended(0, "", self.err).run

    def ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within: float = 30.0) -> Ended:
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within:g} s; it says:\n{self.err}") from None
        return Ended(code, self.out, self.err)


class Machine:
    """See the module. Use it in a `with`; `directory` is the test's own. A run has `parallelism` workers by default."""

    def __init__(self, directory: Path, parallelism: int = 1) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir()
        self.state_dir = directory / "state"
        shutil.copy(HANDLERS, self.home / "tasks.py")
        self._mark = f"TEST_MACHINE={uuid.uuid4().hex}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIECEWORK_")}
        self.environ = inherited | {
            "PIECEWORK_STATE_DIR": str(self.state_dir),
            "PIECEWORK_PARALLELISM": str(parallelism),
            "COLUMNS": "100",
            "PYTHONDONTWRITEBYTECODE": "1",
            self._mark.partition("=")[0]: self._mark.partition("=")[2],
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                eventually(lambda: not self.processes(), 10.0, "no process is left on the machine")
        finally:
            self.kill_everything()

    def start(
        self, *arguments: str, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> Command:
        """A command in the background; its output goes to files unless a descriptor is given."""
        return Command(arguments, self, stdin, stdout, stderr)

    def run(self, *arguments: str, stdin: bytes | None = None, within: float = 30.0) -> Ended:
        """A command, to its end."""
        if stdin is None:
            return self.start(*arguments).ended(within)
        given = self.directory / "stdin"
        given.write_bytes(stdin)
        with given.open("rb") as file:
            return self.start(*arguments, stdin=file.fileno()).ended(within)

    def ask(self, *arguments: str, stdin: bytes = b"", **environ: str) -> Ended:
        """A command within this process: quicker, for those that start no workers."""
        here = Path.cwd()
        os.chdir(self.home)
        try:
            return ask(*arguments, stdin=stdin, environ=self.environ | environ)
        finally:
            os.chdir(here)

    def status(self, run: str) -> dict[str, Any]:
        """What `piecework status RUN --output json` tells."""
        ended = self.ask("status", run, "--output", "json")
        assert ended.code == 0, ended.err
        return dict(json.loads(ended.out))

    @contextlib.contextmanager
    def client(self) -> Any:
        """A client of the embedded server."""
        with embedded.use(self.state_dir) as url, redis.Redis.from_url(url) as client:
            yield client

    def noted(self) -> list[int]:
        """The items that `tasks.noted` has computed."""
        file = self.home / "noted.txt"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    # --- processes

    def processes(self, containing: str = "") -> list[int]:
        """The processes of this machine whose command line contains that text; the server is one of them."""
        return [pid for pid in _pids() if self._is_ours(pid) and containing in command_line(pid)]

    def server(self) -> list[int]:
        """The embedded server, if it runs. (It writes its title over its environment, and so over the mark.)"""
        try:
            pid = int((self.state_dir / "server" / "server.pid").read_text())
        except (OSError, ValueError):
            return []
        return [pid] if "-server" in command_line(pid) and _state(pid) != "Z" else []

    def workers(self) -> list[int]:
        """The main processes of the workers."""
        found = self.processes("piecework_worker.main")
        return [pid for pid in found if _parent(pid) not in found]

    def kill_everything(self) -> None:
        """SIGKILL to all of it, the server included, until nothing is left."""
        deadline = time.monotonic() + 10
        while pids := self.processes():
            assert time.monotonic() < deadline, [command_line(pid) for pid in pids]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        if pid in self.server():
            return True
        if pid == os.getpid() or _state(pid) in ("Z", ""):
            return False
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return self._mark.encode() in environ.split(b"\0")


def command_line(pid: int) -> str:
    """The command line of a process, as `ps` shows it to everybody."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])
