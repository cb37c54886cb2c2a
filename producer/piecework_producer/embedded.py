"""A private server for one machine: started by the first command that needs it, stopped by the last one.

It owns `STATE_DIR/server/` (mode 0700): the append-only file, the log, the socket and three lock files. The
locks are flocks, which the kernel drops with the last descriptor, so no crash leaves one behind:

- `users.lock`: each user holds it shared while it uses the server. A user that leaves asks for it
  exclusively; whoever gets it was the last, and stops the server.
- `start.lock`: held exclusively around each change (attach, start, leave, stop), for moments only. Who comes
  while the last user stops the server waits here, and then starts a fresh one.
- `server.lock`: held by the server itself, which inherits the descriptor. So whether a server runs on these
  data is a fact of the kernel, not of a pid file, and there are never two.

Guarantees: what the server has acknowledged survives its SIGKILL and the next start; a power cut may take the
last second (appendfsync everysec). Ctrl-C in a terminal does not reach the server, which has its own session.

What a crash leaves: a user that was SIGKILLed no longer counts; if it was the last, its server stays until
the next command attaches and leaves. A starter killed half-way leaves a server that comes up by itself and is
attached to. A killed server leaves its data and a stale socket, which the next one replaces. A leaver killed
just after asking the server to stop may take it from a user that attached in that instant: see `ensure`.

A child made with os.fork or multiprocessing holds none of the locks, and leaving is not its business; one
that C code forked behind Python's back does hold them, until it ends. A directory shared by several machines
is no place for this: a socket serves one machine only.
"""

import contextlib
import fcntl
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from piecework.errors import ServerUnusable
from piecework_producer.embedded_lock import Lock, is_held
from piecework_producer.embedded_socket import ELSEWHERE, socket_path
from piecework_producer.server_binary import binary_version, find_binary

log = logging.getLogger(__name__)

LOCK_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
# A server that ends without a word was killed, which may have been meant for its predecessor.
START_ATTEMPTS: Final = 3
# When a server is killed, its child that rewrites the append-only file may hold server.lock a little longer.
ORPHAN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.005
_LOG_BYTES: Final = 1 << 20


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/piecework` or `~/.local/state/piecework`; XDG: a relative path counts as unset."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "piecework"


def serves(state_dir: Path) -> bool:
    """Whether a private server runs on this state directory now; it may still be loading its data."""
    lock_file = _home(state_dir) / "server.lock"
    try:
        return lock_file.exists() and is_held(lock_file)
    except OSError:
        return False


@contextlib.contextmanager
def use(state_dir: Path, *, binary: Path | None = None) -> Iterator[str]:
    """The `unix://` URL of the private server, for the length of the block; see `EmbeddedServer`."""
    with EmbeddedServer(state_dir, binary=binary) as server:
        yield server.url


class EmbeddedServer:
    """One use of the private server: entering attaches, and starts it if none runs; leaving may stop it.

    `binary` is looked for when it is needed and not given. `answer_seconds` is how long a running server may
    be silent on entering and in `ensure`; to answer that it is loading is not silence. Not for several
    threads.
    """

    def __init__(self, state_dir: Path, *, binary: Path | None = None, answer_seconds: float = 10.0) -> None:
        self.home = _home(state_dir)
        self.log_file = self.home / "server.log"
        self._binary = binary
        self._answer_seconds = answer_seconds
        self._users: Lock | None = None
        self._owner = os.getpid()
        self._socket: Path | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """Stays the same through restarts of the server while anybody uses it."""
        if self._socket is None:
            raise RuntimeError("the embedded server has not been entered")
        return f"unix://{quote(str(self._socket))}"

    def __enter__(self) -> Self:
        """Raises ServerUnusable as `ensure` does, and if the state directory cannot be used."""
        try:
            with self._explaining():
                self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.home.chmod(0o700)
                with self._changing():
                    users = Lock(self.home / "users.lock")
                    if not users.take(fcntl.LOCK_SH):
                        raise ServerUnusable(f"{users.path} is locked by a stranger: end it, {ELSEWHERE}.")
                    self._users, self._owner = users, os.getpid()
                    self._socket = socket_path(self.home)
            self.ensure()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def ensure(self) -> bool:
        """See that the server answers; start it on the same data and URL if it is gone. True: it was started.

        Any number of users may call it at once, as often as they like. Raises ServerUnusable if the server
        cannot be started (the message has what its log says), is silent for too long, or cannot write.
        """
        starts = 0
        with self._explaining():
            while True:
                with self._changing():
                    if not self._is_alive():
                        if starts and (starts == START_ATTEMPTS or self._last_words()):
                            raise self._why_it_died()
                        starts += self._start()
                if self._answers():
                    return starts > 0

    def _is_alive(self) -> bool:
        return is_held(self.home / "server.lock")

    def _start(self) -> bool:
        """Start the server, with start.lock held. False if somebody was just looking at server.lock."""
        binary = self._binary or find_binary()
        written = self.home / "appendonlydir"
        if written.exists() and binary_version(binary) < (7, 0):
            raise ServerUnusable(
                f"{binary} is older than the server that wrote {written}, and would begin without these "
                f"data. Put a newer one on the PATH, {ELSEWHERE}."
            )
        self._socket = socket_path(self.home)
        with contextlib.closing(Lock(self.home / "server.lock")) as lock:
            if not lock.take(fcntl.LOCK_EX):
                return False
            for half_written in self.home.glob("temp-*"):
                half_written.unlink()
            if self.log_file.exists() and self.log_file.stat().st_size > _LOG_BYTES:
                self.log_file.replace(self.home / "server.log.1")
            with self.log_file.open("ab") as output:
                self._log_start = output.tell()
                try:
                    self._launcher = subprocess.Popen(
                        [binary, *self._options(self._socket)],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        pass_fds=(lock.descriptor,),
                        start_new_session=True,
                        umask=0o077,
                    )
                except OSError as error:
                    raise ServerUnusable(f"The server {binary} cannot be started: {error.strerror}.") from error
        return True

    def _options(self, socket: Path) -> list[str]:
        options = {
            "daemonize": "yes",
            "supervised": "no",
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(self.home),
            "logfile": str(self.log_file),
            "pidfile": str(self.home / "server.pid"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _answers(self) -> bool:
        """Wait until the server answers: True; until its process is gone: False."""
        silent_since = time.monotonic()
        with contextlib.closing(self._client(timeout=1.0)) as client:
            while True:
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    silent_since = time.monotonic()
                except redis.ResponseError as error:
                    if str(error).startswith("MISCONF"):
                        raise ServerUnusable(
                            f"The embedded server cannot write its append-only file in {self.home}: mostly a "
                            f"full disk, see {self.log_file}. Make room; then it goes on by itself."
                        ) from error
                    silent_since = time.monotonic()
                except (redis.RedisError, OSError) as error:
                    if not self._is_alive():
                        return False
                    silence = time.monotonic() - silent_since
                    listens = isinstance(error, redis.TimeoutError)
                    if silence > (self._answer_seconds if listens else ORPHAN_SECONDS):
                        raise ServerUnusable(
                            f"The embedded server (pid {_contents(self.home / 'server.pid')}) on "
                            f"{self._socket} has not answered for {silence:.1f} s; see {self.log_file}. If "
                            "it is stuck, end it with `kill -9 PID` and try again: its data are safe."
                        ) from error
                else:
                    return True
                finally:
                    # What was launched forks the server and exits; it stays a zombie until it is asked for.
                    if self._launcher is not None and self._launcher.poll() is not None:
                        self._launcher = None
                time.sleep(_POLL_SECONDS)

    def _client(self, timeout: float) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self._socket),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,  # as in `server.connect`
        )

    def _last_words(self) -> str:
        """What the server has said of why it ended, since this user started it; nothing if it was killed."""
        with self.log_file.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        # "1:M 1 Jan 2026 00:00:00.000 # text": another mark than # is not serious; no mark, and it is fatal.
        texts = [
            re.sub(r"^\d+:\w .{20,30} # ", "", line) for line in lines if not re.match(r"\d+:\w .{20,30} [^#] ", line)
        ]
        greeting = re.compile("WARNING|oO0|Redis version|Configuration loaded|Server initialized")
        return " ".join([text.strip() for text in texts if text.strip() and not greeting.match(text)][-2:])

    def _why_it_died(self) -> ServerUnusable:
        said = self._last_words() or "nothing: it was killed, perhaps for want of memory"
        if re.search(r"append.?only|\bAOF\b|\bRDB\b", said, re.I) and "No space" not in said:
            names = [*re.findall(r"[\w.-]+\.(?:aof|rdb|manifest)", said), "appendonly.aof"]
            damaged = next((found for name in names for found in self.home.rglob(name)), self.home)
            return ServerUnusable(
                f"The embedded server cannot read what it keeps of earlier runs, {damaged}: {said!r}. Copy "
                f"{self.home} away first; then repair with `redis-check-aof --fix {damaged}`, which drops "
                "what follows the damage, or move it away to begin with no runs."
            )
        return ServerUnusable(
            f"The embedded server does not start in {self.home}; {self.log_file} says {said!r}. Set that "
            f"right, {ELSEWHERE}."
        )

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is None or self._owner != os.getpid():
            return
        try:
            with contextlib.closing(users), self._changing():
                if users.take(fcntl.LOCK_EX) and self._is_alive():
                    self._stop()
        except (ServerUnusable, redis.RedisError, OSError) as error:
            log.warning("The embedded server in %s was not stopped, and stays for now: %s", self.home, error)

    def _stop(self) -> None:
        """Stop the server with all on the disk; start.lock and, exclusively, users.lock are held."""
        with contextlib.closing(self._client(timeout=1.0)) as client:
            try:
                # A stuck server would find a SHUTDOWN when it comes to, and somebody may use it by then.
                client.ping()
            except (redis.BusyLoadingError, redis.ResponseError):
                pass
            except redis.RedisError:
                if self._is_alive():
                    raise
                return
        with contextlib.closing(self._client(timeout=STOP_SECONDS)) as client:
            client.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        while self._is_alive():
            if time.monotonic() > deadline:
                raise ServerUnusable(f"it has not ended within {STOP_SECONDS:g} s; see {self.log_file}")
            time.sleep(_POLL_SECONDS)
        if self._socket is not None and self._socket.parent != self.home:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with contextlib.closing(Lock(self.home / "start.lock")) as lock:
            deadline = time.monotonic() + LOCK_SECONDS
            while not lock.take(fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise ServerUnusable(
                        f"Another piecework (pid {_contents(lock.path)}) has been starting or stopping the "
                        f"embedded server in {self.home} for {LOCK_SECONDS:g} s. If it is suspended, resume "
                        "it (`fg`) or end it."
                    )
                time.sleep(_POLL_SECONDS)
            with contextlib.suppress(OSError):
                os.ftruncate(lock.descriptor, 0)
                os.pwrite(lock.descriptor, str(os.getpid()).encode(), 0)
            yield

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServerUnusable(
                f"The embedded server cannot use {error.filename or self.home}: {error.strerror or error}. "
                f"Make room or set the permissions there, {ELSEWHERE}."
            ) from error


def _home(state_dir: Path) -> Path:
    # A directory of our own in there, so that the state directory may be one whose mode is not ours to set.
    return (state_dir / "server").resolve()


def _contents(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
