"""The server of k8s/base, started by its start.sh: runs as `producer` and `worker`, and what they may not."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from piecework.audit import audit
from piecework.errors import ServerUnusable
from piecework.keys import queue_name, run_keys
from piecework.ledger import Ledger, runs
from piecework.repair import repair
from piecework.replicas import Replicas
from piecework.scripts import VERBS, source
from piecework.server import check, connect
from piecework.settings import with_password
from piecework.states import State
from piecework_producer.api import submit
from piecework_producer.pile import rq_job_template
from piecework_producer.server_binary import find_binary
from tests.ledger_fixture import at_pace, commit
from tests.server_fixture import eventually
from tests.worker_fixture import WorkerProcess

BASE = Path(__file__).parents[2] / "k8s" / "base" / "redis"
PASSWORDS = {"producer": "p:w/1#ä", "worker": "w@2?"}
HANDLERS = """
import os, time
import piecework

def mixed(item):
    n = item["n"] if isinstance(item, dict) else item
    if n == 3 and piecework.current().attempt == 1:
        raise ValueError("at the first attempt")
    if n == 4:
        raise ValueError("at every attempt")
    if n == 5:
        os.abort()
    if n == 6:
        time.sleep(600)
    return n * n

def slow(item):
    time.sleep(0.05)
    return item * item
"""


class ClusterServer:
    """What runs in the pod of k8s/base, on a Unix socket."""

    def __init__(self, passwords: dict[str, str]) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="pw-", dir="/tmp")
        self.directory = Path(self._temporary.name)
        self.socket = self.directory / "s"
        for user, password in passwords.items():
            (self.directory / "secrets" / user).mkdir(parents=True)
            (self.directory / "secrets" / user / "password").write_text(password)
        for folder in ("bin", "run", "data"):
            (self.directory / folder).mkdir()
        (self.directory / "bin" / "valkey-server").symlink_to(find_binary())
        own = ["--port", "0", "--unixsocket", str(self.socket)]
        self.log_file = self.directory / "log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", str(BASE / "start.sh"), *own],
                env={
                    "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                    "VALKEY_CONFIG": str(BASE),
                    "VALKEY_SECRETS": str(self.directory / "secrets"),
                    "VALKEY_RUN": str(self.directory / "run"),
                    "VALKEY_DATA": str(self.directory / "data"),
                    "MAXMEMORY": "64mb",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        eventually(lambda: self.socket.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log_file.read_text()
        eventually(self.admin().ping)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._temporary.cleanup()

    def url(self, user: str) -> str:
        """With the password, put together as the producer and the workers do it."""
        return with_password(f"unix://{user}@{self.socket}", PASSWORDS[user])

    def client(self, user: str) -> redis.Redis:
        return connect(self.url(user))

    def admin(self) -> redis.Redis:
        password = (self.directory / "run" / "password").read_text().strip()
        return redis.Redis(unix_socket_path=str(self.socket), username="admin", password=password)

    def denied(self) -> list[tuple[str, str]]:
        """(user, what) that the ACL has refused so far."""
        log = self.admin().acl_log()
        return [(_text(entry["username"]), _text(entry["object"])) for entry in log]


def answer_to(client: redis.Redis, command: str) -> object:
    """What the server says to a command in words."""
    answer: object = client.execute_command(*command.split())  # type: ignore[no-untyped-call]
    return answer


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def shared() -> Iterator[ClusterServer]:
    if subprocess.run([str(find_binary()), "--version"], capture_output=True, text=True).stdout.startswith("Redis"):
        pytest.skip("the ACL file is for Valkey 8.1; the server here is Redis")
    with ClusterServer(PASSWORDS) as server:
        yield server


@pytest.fixture
def server(shared: ClusterServer) -> ClusterServer:
    shared.admin().flushall()
    shared.admin().acl_log_reset()
    return shared


@pytest.fixture
def workers(server: ClusterServer, tmp_path: Path) -> Iterator["Workers"]:
    (tmp_path / "handlers_of_acl_test.py").write_text(HANDLERS)
    started = Workers(server, tmp_path)
    try:
        yield started
    finally:
        started.destroy()


class Workers:
    def __init__(self, server: ClusterServer, directory: Path) -> None:
        self._server, self._directory = server, directory
        self._started: list[WorkerProcess] = []

    def start(self, run: str, handler: str, *options: str) -> WorkerProcess:
        """As a pod gets it: URL and password apart."""
        directory = self._directory / f"worker-{len(self._started)}"
        directory.mkdir()
        environ = {
            "PIECEWORK_REDIS": f"unix://worker@{self._server.socket}",
            "PIECEWORK_REDIS_PASSWORD": PASSWORDS["worker"],
        }
        arguments = [run, "--handler", f"handlers_of_acl_test:{handler}", "--lease", "1", *options]
        worker = WorkerProcess(arguments, directory, environ, self._directory)
        self._started.append(worker)
        return worker

    def destroy(self) -> None:
        for worker in self._started:
            worker.destroy()


def test_a_run_from_submit_to_delete(server: ClusterServer, workers: Workers) -> None:
    """With a retry, a failure, a crash, a time-out, a foreign job, and items of every kind of payload."""
    items = [{"n": n} for n in range(40)]
    with submit(
        "handlers_of_acl_test:mixed",
        items,
        run="acl",
        redis=server.url("producer"),
        retries=1,
        chunk_size=10,
        item_timeout=1.0,
    ) as run:
        _push_foreign_job(server, "acl")
        worker = workers.start("acl", "mixed", "--item-timeout", "1")
        assert worker.exit_code(within=60) == 0
        status = run.status()
        assert (status.state, status.done, status.failed) == (State.COMPLETED_WITH_FAILURES, 37, 3)
        outcomes = [json.loads(outcome.to_json()) for outcome in run.results()]
        assert [outcome["index"] for outcome in outcomes] == list(range(40))
        assert [outcome["index"] for outcome in outcomes if "error" in outcome] == [4, 5, 6]
        assert {failure.index for failure in run.failures()} == {4, 5, 6}
        assert runs(server.client("producer")) == ["acl"]
        assert audit(run.ledger).findings == ()
        server.admin().delete(run.ledger.keys.results, run.ledger.keys.template)
        server.admin().hset(run.ledger.keys.payload, "x", "y")
        assert repair(run.ledger, rq_job_template(run.session.client, "acl")).left.findings == ()
        assert run.status().state is State.RUNNING
        assert workers.start("acl", "mixed", "--item-timeout", "1").exit_code(within=60) == 0

        assert run.retry() == 3
        assert run.pause() is State.RUNNING
        assert run.resume() is State.RUNNING
        assert run.cancel("enough") is State.CANCELLED
        assert workers.start("acl", "mixed", "--item-timeout", "1").exit_code() == 65
        assert server.client("worker").zcard("rq:failed:piecework-acl") == 1
        run.delete()
    assert server.denied() == []
    assert list(server.admin().scan_iter()) == []


def _push_foreign_job(server: ClusterServer, run: str) -> None:
    admin = server.admin()
    queue = Queue(queue_name(run), connection=admin, serializer=JSONSerializer)
    job = Job.create("os.getpid", connection=admin, serializer=JSONSerializer, origin=queue.name)
    job.save()
    queue.push_job_id(job.id, at_front=True)


def test_workers_that_are_killed_and_stopped(server: ClusterServer, workers: Workers) -> None:
    with submit(
        "handlers_of_acl_test:slow", range(200), run="lost", redis=server.url("producer"), chunk_size=20
    ) as run:
        killed, stopped = workers.start("lost", "slow"), workers.start("lost", "slow")
        eventually(lambda: run.status().in_flight > 20, timeout=20)
        killed.destroy()
        stopped.send(signal.SIGTERM)
        assert stopped.exit_code() == 75
        last = [workers.start("lost", "slow"), workers.start("lost", "slow", "--isolation", "none")]
        assert [worker.exit_code(within=60) for worker in last] == [0, 0]
        assert run.status().state is State.SUCCEEDED
        assert [outcome.result for outcome in run.results()] == [n * n for n in range(200)]
        run.delete()
    assert server.denied() == []


def test_heartbeats_of_rq(
    server: ClusterServer,
) -> None:
    """RQ's registries are best effort for a worker: a command that they lack shows in the ACL log only."""
    client = server.client("worker")
    with submit("handlers_of_acl_test:slow", range(1), run="beat", redis=server.url("producer")) as run:
        job = Job.fetch("piecework-beat-1", connection=client, serializer=JSONSerializer)
        from rq.executions import Execution
        from rq.registry import StartedJobRegistry

        registry = StartedJobRegistry(queue_name("beat"), connection=client, serializer=JSONSerializer)
        with client.pipeline() as pipe:
            execution = Execution.create(job, ttl=60, pipeline=pipe)
            pipe.execute()
        with client.pipeline() as pipe:
            execution.heartbeat(registry, 60, pipe)
            job.heartbeat(job.created_at, 60, pipeline=pipe)
            execution.delete(job, pipe)
            pipe.execute()
        run.delete()
    assert server.denied() == []


@pytest.mark.parametrize("user", ["producer", "worker"])
def test_replicas_may_be_waited_for(server: ClusterServer, user: str) -> None:
    with pytest.raises(redis.ResponseError, match="NOREPLICAS 0 of 1"):
        Replicas(server.client(user), "r", 1).wait()
    assert server.denied() == []


def test_what_a_dead_worker_had_popped_is_put_back_by_the_producer(server: ClusterServer) -> None:
    with submit("m:f", range(1), run="popped", redis=server.url("producer")) as run:
        keys = run.ledger.keys
        server.admin().lmove(keys.queue, keys.intermediate, "LEFT", "LEFT")
        assert run.ledger.reap("dead") == 1
        assert server.admin().llen(keys.queue) == 1
        run.delete()
    assert server.denied() == []


def test_a_straggler_is_copied_by_workers(server: ClusterServer) -> None:
    with submit("m:f", range(2), run="copied", redis=server.url("producer"), chunk_size=1) as run:
        ledger = Ledger(server.client("worker"), "copied")
        for number, worker in ((1, "owner"), (2, "other")):
            assert ledger.claim(number, worker, 60)
        at_pace(Ledger(server.admin(), "copied"), 1, since=30)
        claim, _ = ledger.copy("copier", 60)
        assert claim is not None
        assert ledger.renew(1, "copier", 60)[0]
        for worker, status in (("copier", "recorded"), ("owner", "refused")):
            assert commit(ledger, 1, 0, 1, worker=worker).status == status
        assert run.status().duplicates == 1
    assert server.denied() == []


def test_a_stop_command_reaches_a_worker(server: ClusterServer) -> None:
    listener: Any = server.client("worker").pubsub()  # type: ignore[no-untyped-call]
    listener.subscribe("rq:pubsub:some-worker")
    assert listener.get_message(timeout=5) is not None
    listener.subscribe("elsewhere")
    with pytest.raises(redis.exceptions.NoPermissionError):
        listener.get_message(timeout=5)


FORBIDDEN = (
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET requirepass",
    "CONFIG SET appendonly no",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    "ACL LIST",
    "ACL SETUSER worker +@all",
    "SHUTDOWN NOSAVE",
    "BGREWRITEAOF",
    "REPLICAOF 127.0.0.1 1",
    "MONITOR",
    "CLIENT LIST",
    "CLIENT KILL ID 1",
    "CLIENT NO-EVICT on",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION LIST",
    "MODULE LIST",
    "SWAPDB 0 1",
    "SELECT 1",
    "MOVE rq:queues 1",
    "MIGRATE 127.0.0.1 1 rq:queues 0 1",
    "DUMP rq:queues",
    "RENAME rq:queues rq:other",
    "OBJECT FREQ rq:queues",
    "PUBLISH rq:pubsub:other stop",
    "EVAL return(1) 0",
    "GET other",
    "HGET other:1:run state",
    "HGET piecework:2:x:run state",
    "DEL other",
    "COPY rq:queues other",
)


@pytest.mark.parametrize("command", FORBIDDEN)
@pytest.mark.parametrize("user", ["producer", "worker"])
def test_forbidden(server: ClusterServer, user: str, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        answer_to(server.client(user), command)


@pytest.mark.parametrize(
    "command", ["XRANGE piecework:1:r:results - +", "UNLINK piecework:1:r:run", "HKEYS piecework:1:r:run"]
)
def test_forbidden_to_workers(server: ClusterServer, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        answer_to(server.client("worker"), command)


@pytest.mark.parametrize("user", ["producer", "worker"])
@pytest.mark.parametrize(
    "body",
    ["return redis.call('FLUSHALL')", "return redis.call('KEYS', '*')", "return redis.call('DEL', 'other')"],
)
def test_a_script_gives_no_right_that_its_caller_has_not(server: ClusterServer, user: str, body: str) -> None:
    server.admin().set("other", 1)
    script = Script(server.client(user), body)
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
        script()
    assert server.admin().get("other") == b"1"


def test_a_worker_cannot_run_the_delete_script(server: ClusterServer) -> None:
    with submit("m:f", range(3), run="kept", redis=server.url("producer")) as run:
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
            Ledger(server.client("worker"), "kept").delete()
        assert run.status().state is State.RUNNING
        run.delete()


def test_every_key_of_a_run_is_allowed_to_both(server: ClusterServer) -> None:
    admin = server.admin()
    for user in PASSWORDS:
        for key in run_keys("some-run").as_list():
            assert answer_to(admin, f"ACL DRYRUN {user} HGET {key} field") == b"OK"
    for verb in VERBS:
        server.client("worker").script_load(source(verb))


@pytest.mark.parametrize("user", ["", "default", "worker", "probe", "admin"])
def test_no_way_in_without_the_password(server: ClusterServer, user: str) -> None:
    client = redis.Redis(
        unix_socket_path=str(server.socket),
        username=user or None,
        password="change-me" if user else None,
        retry=Retry(NoBackoff(), 0),
    )
    with pytest.raises(redis.AuthenticationError):
        client.ping()


def test_without_a_password_a_person_is_told_so(server: ClusterServer) -> None:
    with pytest.raises(ServerUnusable, match="password"):
        check(connect(f"unix://{server.socket}"))


def test_the_probe_may_only_ping(server: ClusterServer) -> None:
    password = (server.directory / "run" / "password").read_text().strip()
    probe = redis.Redis(unix_socket_path=str(server.socket), username="probe", password=password)
    assert probe.ping()
    for command in ("INFO", "GET rq:queues"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            answer_to(probe, command)


def test_the_probes_script(server: ClusterServer) -> None:
    environ = {
        "PATH": f"{find_binary().parent}:{os.environ['PATH']}",
        "VALKEY_RUN": str(server.directory / "run"),
        "VALKEY_SOCKET": str(server.socket),
    }

    def ping(word: str, **more: str) -> int:
        command = ["/bin/sh", str(BASE / "ping.sh"), word]
        return subprocess.run(command, env=environ | more, capture_output=True, timeout=10).returncode

    assert ping("ready") == ping("alive") == 0
    assert ping("ready", VALKEY_SOCKET="/nowhere") == ping("alive", VALKEY_SOCKET="/nowhere") == 1
    with ClusterServer(PASSWORDS) as other:
        elsewhere = str(other.directory / "run")
        assert ping("ready", VALKEY_RUN=elsewhere) == ping("alive", VALKEY_RUN=elsewhere) == 1


def test_the_server_is_fit_for_a_ledger(server: ClusterServer) -> None:
    facts = check(server.client("producer"))
    assert facts.appendonly is True
    assert facts.maxmemory == 64 << 20
    config = server.admin().config_get("*")
    assert config["maxmemory-policy"] == "noeviction"
    assert config["appendfsync"] == "everysec"
    assert config["save"] == ""


def test_no_password_in_clear_on_the_server(server: ClusterServer) -> None:
    acl = (server.directory / "run" / "users.acl").read_text()
    assert not [word for word in PASSWORDS.values() if word in acl]
    assert "<" not in acl
    assert (server.directory / "run" / "password").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("passwords", "said"),
    [
        ({"producer": "change-me-producer", "worker": "w"}, "password of the producer is change-me-producer"),
        ({"producer": "p", "worker": ""}, "password of the worker is empty"),
        ({"producer": "same", "worker": "same"}, "the same password"),
    ],
)
def test_it_does_not_start_with_an_example_password(passwords: dict[str, str], said: str) -> None:
    server = ClusterServer(passwords)
    try:
        assert server.process.wait(10) == 1
        assert said in server.log_file.read_text()
    finally:
        server.__exit__(None, None, None)
