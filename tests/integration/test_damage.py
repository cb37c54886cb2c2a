"""Whatever stands on the server: a named error, or a clean refusal; never a traceback, and never a command that is run.

Each value that is read back from Redis is changed, cut, or put in another type's key, and every reader reads it.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from piecework.errors import CorruptData, PieceworkError
from piecework.keys import RUNS, RunKeys
from piecework.ledger import Ledger, runs
from piecework.payload import Items
from piecework.records import Failure
from piecework.results import ResultReader
from piecework.states import State
from piecework_producer.api import submit
from piecework_producer.cli.errors import plain
from tests.cli_fixture import Machine
from tests.ledger_fixture import commit
from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import Pile

BOOM = Failure("ValueError", "boom")
WORDS = [
    *(b"", b"-1", b"0", b"1e400", b"nan", b"inf", b"9" * 30, b"9" * 5000, b"1.5", b"\xff\xfe", b"null", b"[]", b"{}"),
    *(b'"x"', b"[1]", b"running", b"0+99999999999999999999", b"\x00", b"5 3 4 0 0 0 0 0 ", b"0 5 9 0 0 0 0 0 x"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def database(server: ServerProcess) -> Iterator[Redis]:
    with server.client() as client:
        client.flushall()
        yield client


def filled_run(server: ServerProcess, run: str) -> Ledger:
    """With items of its own, results, failures, an open chunk that is leased and copied, and one that waits."""
    submit("m:f", [{"n": n} for n in range(20)], run=run, redis=server.url, chunk_size=5).close()
    client = server.client()
    ledger = Ledger(client, run)
    for chunk in (1, 2, 3):
        assert ledger.claim(chunk, f"w{chunk}", 60)
    commit(ledger, 1, 0, 5, failing=[3])
    commit(ledger, 2, 5, 2)
    client.hset(ledger.keys.copies, "3", "99999999999999 w2")
    ledger.note_place('{"on": "kubernetes", "namespace": "here", "context": "there"}')
    return ledger


def readers(ledger: Ledger) -> dict[str, Callable[[], object]]:
    """All that reads a run, as a verb or a worker does."""

    def read(**options: bool) -> None:
        reader = ResultReader(ledger, ledger.spec(), **options)
        for outcome in (*reader.in_order(), *reader.rest()):
            outcome.to_json(("type", "message", "attempt", "traceback"))

    return {
        "spec": ledger.spec,
        "workers' options": ledger.worker_arguments,
        "place": ledger.place,
        "filled": ledger.filled,
        "status": ledger.status,
        "results": read,
        "failures": lambda: read(failures_only=True),
        "as they come": lambda: [each.to_json() for each in ResultReader(ledger, ledger.spec()).as_they_come()],
        "item": lambda: Items(ledger, ledger.spec()).span(0, 12),
        "runs": lambda: runs(ledger.client),
        "claim": lambda: ledger.claim(4, "w4", 60),
        "renew": lambda: ledger.renew(3, "w3", 60),
        "renew a copy": lambda: ledger.renew(3, "w2", 60),
        "copy": lambda: ledger.copy("w9", 60),
        "commit": lambda: commit(ledger, 3, 10, 2, failing=[11]),
        "release": lambda: ledger.release(3, "w3", "why"),
        "blame": lambda: ledger.blame_crash(2, "w2", 7, BOOM, 1),
        "join": lambda: ledger.join("w9"),
        "tend": lambda: ledger.tend("w9"),
        "reap": lambda: ledger.reap("w4"),
        "cut": lambda: ledger.cut(5),
        "pause": lambda: ledger.pause(False),
        "retry": ledger.retry,
    }


def read_all(ledger: Ledger) -> list[str]:
    """The names of the readers that found damage; anything else than a named error passes through."""
    found, said = [], []
    for name, read in readers(ledger).items():
        try:
            read()
        except CorruptData as error:
            found.append(name)
            said.append(str(error))
        except PieceworkError:
            continue
    assert "\n" not in "".join(said)
    return found


def contents(client: Redis) -> dict[bytes, bytes]:
    keys = cast(list[bytes], client.keys())
    return {key: cast(bytes, client.dump(key)) for key in keys}


@pytest.fixture
def ledger(server: ServerProcess, database: Redis) -> Ledger:
    return filled_run(server, "hurt")


def test_sound_values_are_read(ledger: Ledger) -> None:
    assert read_all(ledger) == []
    assert ledger.status().done == 7


def fields_of(client: Redis, key: str) -> list[bytes]:
    return sorted(cast(list[bytes], client.hkeys(key)))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_field_changed(ledger: Ledger, data: st.DataObject) -> None:
    """A field of the run's hash, a chunk's record, a copy, or a block, overwritten with anything or a bit of it."""
    client, keys = ledger.client, ledger.keys
    before = contents(client)
    key = data.draw(st.sampled_from([keys.run, keys.run, keys.chunks, keys.copies, keys.payload]))
    name = data.draw(st.sampled_from(fields_of(client, key)))
    value = bytearray(cast(bytes, client.hget(key, cast(str, name))))
    kind = data.draw(st.sampled_from(["word", "bits", "cut", "gone", "random"]))
    if kind == "gone":
        client.hdel(key, cast(str, name))
    else:
        if kind == "bits" and value:
            value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        changed = {
            "word": lambda: data.draw(st.sampled_from(WORDS)),
            "bits": lambda: bytes(value),
            "cut": lambda: bytes(value[: data.draw(st.integers(0, len(value)))]),
            "random": lambda: data.draw(st.binary(max_size=30)),
        }[kind]()
        client.hset(key, cast(str, name), changed)
    try:
        read_all(ledger)
    finally:
        put_back(client, before)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_entry_of_a_stream(ledger: Ledger, data: st.DataObject) -> None:
    client, before = ledger.client, contents(ledger.client)
    stream = data.draw(st.sampled_from([ledger.keys.results, ledger.keys.failures]))
    ((_, sound),) = cast(Any, client.xrange(ledger.keys.results, count=1))
    entry = dict(sound)
    name = data.draw(st.sampled_from([b"s", b"d"]))
    entry[name] = data.draw(st.sampled_from([*WORDS, sound[b"d"], b"0+4", b"3+1", b"7+4", b"15+4"]) | st.binary())
    if data.draw(st.booleans()):
        entry[b"s"] = data.draw(st.sampled_from([b"5+4", b"3+1,8+3", b"16+4", b"18+4", b"9007199254740990+4", b"0+1"]))
    client.xadd(stream, cast(Any, entry))
    client.xadd(ledger.keys.events, cast(Any, entry))
    try:
        read_all(ledger)
    finally:
        put_back(client, before)


def put_back(client: Redis, before: dict[bytes, bytes]) -> None:
    with client.pipeline(transaction=False) as pipe:
        pipe.flushall()
        for key, value in before.items():
            pipe.restore(key, 0, cast(Any, value))
        pipe.execute()


def of_another_type(client: Redis, key: str) -> None:
    """Replace a key by one of another type."""
    kind = cast(bytes, client.type(key))
    client.delete(key)
    if kind == b"string":
        client.rpush(key, "x")
    else:
        client.set(key, "x")


def test_any_key_of_another_type(ledger: Ledger) -> None:
    client, before = ledger.client, contents(ledger.client)
    for name, key in vars(ledger.keys).items():
        if name != "job_prefix":
            of_another_type(client, key)
            found = read_all(ledger)
            assert found or name in ("intermediate", "started", "failed_jobs", "rq_workers", "all_rq_workers",
                                     "suspended", "queues", "template"), name  # fmt: skip
            put_back(client, before)


def test_blocks_that_lead_nowhere_do_not_hold_a_reader_up(ledger: Ledger) -> None:
    ledger.client.zadd(ledger.keys.blocks, {"50": 0.5})
    ledger.client.hset(ledger.keys.payload, "50", cast(bytes, ledger.client.hget(ledger.keys.payload, "0")))
    with pytest.raises(CorruptData, match="item 1 is missing"):
        Items(ledger, ledger.spec()).span(1, 5)


def test_an_outcome_that_json_has_not(ledger: Ledger) -> None:
    import zstandard

    packed = zstandard.compress(b"\x91\x81\x91\x01\x02")  # [{[1]: 2}]
    ledger.client.xadd(ledger.keys.results, {"s": "7+1", "d": packed, "m": b""})
    assert {"results", "as they come"} <= set(read_all(ledger))


# --- as a person sees it

VERBS = ("status", "results", "failures", "wait", "logs", "retry", "pause", "cancel", "delete")


def test_verbs_on_a_damaged_run_are_one_line(server: ServerProcess, database: Redis, tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        machine.environ["PIECEWORK_REDIS"] = server.url
        assert machine.ask("submit", "tasks:square", "--range", "0:6", "--run", "hurt").code == 0
        assert machine.ask("submit", "tasks:square", "--range", "0:6", "--run", "fine").code == 0
        keys, before = Ledger(database, "hurt").keys, contents(database)
        for damage in damages(database, keys):
            damage()
            for verb in VERBS:
                ended = machine.ask(verb, "hurt", *(["--timeout", "0"] if verb == "wait" else []))
                said = [line for line in ended.err.splitlines() if "drain it here" not in line]
                assert ended.code in (2, 3), (verb, ended)
                assert len(said) == 1, (verb, ended.err)
                assert said[0].startswith("piecework: error: run hurt"), said
            everything = machine.ask("status")
            assert everything.code == 0
            assert "fine" in everything.out
            put_back(database, before)


def damages(client: Redis, keys: RunKeys) -> Iterator[Callable[[], object]]:
    yield lambda: client.hset(keys.run, "spec", "{")
    yield lambda: client.hset(keys.run, "spec", '{"handler": 5}')
    yield lambda: client.hset(keys.run, "contract", "one")
    yield lambda: of_another_type(client, keys.run)


def test_no_command_of_a_server_is_run(server: ServerProcess, database: Redis, tmp_path: Path) -> None:
    """A hostile writer has put a command where the workers' options stand."""
    with Machine(tmp_path) as machine, Pile(server, tmp_path, "lured") as pile:
        machine.environ["PIECEWORK_REDIS"] = server.url
        evil = f"touch {shlex.quote(str(tmp_path / 'owned'))} {{}}"
        pile.submit(f"exec:{evil}", 4, 4)
        database.hset(pile.ledger.keys.run, "worker_arguments", json.dumps([f"--exec={evil}\x1b[2J"]))
        ended = machine.run("retry", "lured")
        assert ended.code == 2
        assert "was not submitted from here" in ended.err
        assert "\x1b" not in ended.err
        assert machine.ask("retry", "lured", "--detach").code == 0

        assert machine.ask("submit", "tasks:square", "--range", "0:4", "--run", "mine").code == 0
        database.hset(Ledger(database, "mine").keys.run, "worker_arguments", json.dumps([f"--exec={evil}"]))
        assert machine.run("retry", "mine", "-p", "1").code == 0, "by what was noted here"
        assert machine.ask("delete", "mine").code == 0
        assert list((machine.state_dir / "submitted").iterdir()) == []
        assert not (tmp_path / "owned").exists()


def test_names_that_are_no_runs(database: Redis) -> None:
    database.zadd(RUNS, {"../../etc": 1, "\x1b[2J": 2, "UPPER": 3, "": 4})
    assert runs(database) == []


def test_run_ids_are_no_paths(server: ServerProcess, tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        machine.environ["PIECEWORK_REDIS"] = server.url
        for run in ("../../x", "/etc", "a/b", ".", "a\nb"):
            for words in (("logs",), ("delete", "--force"), ("submit", "m:f", "--range", "0:1", "--run")):
                ended = machine.ask(*words, run)
                assert ended.code == 2
                assert "is not allowed: use 1 to 48 of a-z, 0-9 and '-'" in ended.err
        assert not [path for path in tmp_path.rglob("*") if path.name in ("x", "b", "x.json", "b.json")]


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert plain("a\x1b[2Jb\u009b\u202ec\x7f\rä\n\t😀") == "a\\x1b[2Jb\\x9b\\u202ec\\x7f\\rä\n\t😀"


# --- as a worker sees it


def test_a_worker_on_a_damaged_run_leaves_with_one_line(server: ServerProcess, database: Redis, tmp_path: Path) -> None:
    damaged: dict[str, Callable[[Redis, RunKeys], object]] = {
        "specification": lambda client, keys: client.hset(keys.run, "spec", "{"),
        "chunk": lambda client, keys: client.hset(keys.chunks, "1", "junk"),
        "workers": lambda client, keys: of_another_type(client, keys.workers),
        "payload": lambda client, keys: client.hset(keys.payload, "0", "junk"),
        "blocks": lambda client, keys: of_another_type(client, keys.blocks),
        "RQ's workers": lambda client, keys: of_another_type(client, keys.rq_workers),
    }
    for number, (what, damage) in enumerate(damaged.items()):
        (directory := tmp_path / str(number)).mkdir()
        with Pile(server, directory, f"hurt-{number}") as pile:
            pile.submit("square", 4, 4, items=[1, 2, 3, 4])
            damage(database, pile.ledger.keys)
            worker = pile.worker()
            assert worker.exit_code() == 70, (what, worker.log)
            assert "Traceback" not in worker.log, (what, worker.log)
            assert re.search(r"damaged|WRONGTYPE|cannot be worked on", worker.last_line), (what, worker.last_line)
            database.flushall()


def test_job_hashes_of_rq_are_not_believed(server: ServerProcess, database: Redis, tmp_path: Path) -> None:
    """One field of each chunk's job is junk: such a delivery is worth nothing, and the ledger makes it again."""
    with Pile(server, tmp_path) as pile:
        pile.submit("square", 24, 2)
        job = pile.ledger.keys.job_prefix
        for chunk in range(1, 13):
            fields = fields_of(database, f"{job}{chunk}")
            database.hset(f"{job}{chunk}", cast(str, fields[chunk % len(fields)]), b"\xff{junk")
        of_another_type(database, f"{job}1")
        worker = pile.worker()
        eventually(lambda: pile.status.state is State.SUCCEEDED, message=lambda: worker.log)
        assert worker.exit_code() == 0
        assert "Traceback" not in worker.log
