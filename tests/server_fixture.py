"""A throw-away Redis or Valkey server for one test, and polling with a deadline.

`ServerProcess` owns a short directory of its own under /tmp (a socket's path must be short), which `stop`
removes. A test run that is itself killed leaves the server and the directory behind.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from piecework_producer.server_binary import find_binary

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout: float = 30.0, message: object = "") -> T:
    """The first true answer of `predicate`, asked every 10 ms; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {message or predicate}")
        time.sleep(0.01)
    return answer


def free_port() -> int:
    """A TCP port of 127.0.0.1 at which nobody listened just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ServerProcess:
    """A running server; `options` are its own, as in `ServerProcess("--appendonly", "yes")`.

    It keeps nothing and has no TCP port unless the options say so. Use it in a `with`, or call `stop`.
    """

    def __init__(self, *options: str, binary: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pw-", dir="/tmp"))
        self.socket = self.directory / "s"
        self.url = f"unix://{self.socket}"
        self.log_file = self.directory / "log"
        self._command = [str(binary or find_binary()), "--port", "0", "--unixsocket", str(self.socket)]
        self._command += ["--dir", str(self.directory), "--save", "", *options]
        try:
            self._process = self._start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def client(self, *, password: str | None = None, socket_timeout: float = 5.0) -> redis.Redis:
        """A new client that does not try anything again, with answers in bytes."""
        return redis.Redis(
            unix_socket_path=str(self.socket),
            password=password,
            socket_timeout=socket_timeout,
            retry=Retry(NoBackoff(), 0),
        )

    def kill(self) -> None:
        """SIGKILL; what it has acknowledged is on disk only with appendonly."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """SIGKILL if it runs, then start it on the same data, socket and options."""
        self.kill()
        self._process = self._start()

    def pause(self) -> None:
        """SIGSTOP: connections are accepted, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its data; may be called twice."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as output:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                restore_signals=False,  # Python ignores SIGXFSZ: a file that may not grow is a full disk then
            )
        try:
            eventually(lambda: self._is_up(process), message="the server is up")
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the server has ended ({process.returncode}): {self.log_file.read_text()}")
        client = self.client()
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
        finally:
            client.close()
