"""`piecework run` and `submit` as typed on a machine: items, results, exit codes, and what a person is told."""

import json
import os
import pty
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_fixture import SQUARES, Machine, command_line
from tests.server_fixture import ServerProcess, eventually


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def test_what_is_not_needed_is_not_imported(machine: Machine) -> None:
    """Imports are most of the time of a short run: of the command, of its worker, and of the horse."""
    told = machine.home / "sitecustomize.py"
    told.write_text("import atexit, sys\natexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n")
    machine.environ["PYTHONPATH"] = str(machine.home)

    ended = machine.run("run", "tasks:modules", "--range", "0:1", "-p", "1")

    assert ended.code == 0, ended.err
    command, horse = set(ended.err.splitlines()[-1].split()), set(ended.lines[0]["result"])
    assert {"rq.job", "piecework_producer.cli.work"} <= command
    assert {"rq.worker", "piecework_worker.each_item"} <= horse
    heavy = {"kubernetes", "rich", "yaml", "croniter", "gmpy2", "numpy"}
    assert not command & {*heavy, "piecework_worker", "piecework_producer.cli.schedule", "piecework_producer.cli.look"}
    assert not horse & {*heavy, "typer", "piecework_producer"}


# --- items


def test_a_first_run(machine: Machine) -> None:
    ended = machine.run("run", "tasks:square", "--range", "0:20", "-p", "2")

    assert ended.code == 0, ended.err
    assert ended.lines == SQUARES
    assert "\x1b" not in ended.err, "plain lines where there is no terminal"
    first, *_, last = ended.err.splitlines()
    assert first == f"piecework: run {ended.run} running: 0/20 items, 2 workers"
    assert re.fullmatch(rf"piecework: run {ended.run} succeeded: 20 done, 0 failed of 20 in .*s \(.* items/s\)", last)
    assert re.fullmatch(r"square-\d{8}-\d{4}-[0-9a-f]{8}", ended.run)


@pytest.mark.parametrize(
    ("items", "stdin", "expected"),
    [
        (("--range", "5:-4:-3"), None, [5, 2, -1]),
        (("--lines", "-"), b"\xef\xbb\xbfa\r\n\r\n b\xc3\xa4", ["a", "", " bä"]),
        (("--lines", "items"), b"x\ny\n", ["x", "y"]),
        (("--jsonl", "-"), b'[1]\n\n{"a": 12345678901234567890123}\n"z"', [[1], {"a": 12345678901234567890123}, "z"]),
        (("--jsonl", "items"), b"1\n2\n", [1, 2]),
    ],
)  # fmt: skip
def test_items_from_everywhere(
    machine: Machine, items: tuple[str, ...], stdin: bytes | None, expected: list[Any]
) -> None:
    (machine.home / "items").write_bytes(stdin or b"")

    ended = machine.run("run", "tasks:echo", *items, "-p", "1", stdin=stdin)

    assert ended.code == 0, ended.err
    assert [line["item"] for line in ended.lines] == expected
    assert [line["result"] for line in ended.lines] == expected


@pytest.mark.parametrize("items", [("--range", "3:3"), ("--lines", "-"), ("--jsonl", "-")])
def test_an_empty_pile_succeeds_without_a_worker(machine: Machine, items: tuple[str, ...]) -> None:
    ended = machine.run("run", "tasks:square", *items, stdin=b"")

    assert (ended.code, ended.out) == (0, "")
    assert "succeeded: 0 done, 0 failed of 0" in ended.err
    assert not (machine.state_dir / "logs" / ended.run).exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (("--jsonl", "-"), b"1\n{bad\n", "standard input, line 2: JSON is malformed"),
        (("--lines", "-"), b"a\n\xff\n", "standard input, line 2: not UTF-8"),
        (("--lines", "missing"), b"", "missing cannot be read: No such file"),
        (("--lines", "."), b"", ". cannot be read: Is a directory"),
        (("--range", "0:x"), b"", "--range '0:x' is not START:STOP[:STEP]"),
        (("--range", f"0:{2**64}"), b"", "more items than a run can have"),
        ((), b"", "no items: give one of"),
        (("--range", "0:3", "--lines", "-"), b"", "--range and --lines exclude each other"),
        (("--range", "0:3", "--run", "A"), b"", "run id 'A' is not allowed"),
        (("--range", "0:3", "--max-failures", "x"), b"", "--max-failures 'x' is neither"),
        (("--range", "0:3", "--results", "no/where"), b"", "--results no/where cannot be written: No such file"),
        (("--range", "0:3", "--reduce", "tasks:no"), b"", "--reduce tasks:no cannot be imported"),
        (("--range", "0:3", "--redis", "http://h"), b"", "The Redis URL 'http://h' has no scheme"),
        (("--range", "0:3", "-p", "0"), b"", "--parallelism (PIECEWORK_PARALLELISM): "),
        (("--range", "0:2000000", "--chunk-size", "1"), b"", "--chunk-size 1 makes 2,000,000 chunks"),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line_and_leave_nothing(
    machine: Machine, arguments: tuple[str, ...], stdin: bytes, problem: str
) -> None:
    (machine.directory / "stdin").write_bytes(stdin)
    with (machine.directory / "stdin").open("rb") as file:
        ended = machine.ask("run", "tasks:square", *arguments, stdin=file.read())

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("piecework: error: ")
    assert problem in ended.err
    assert len(ended.err.splitlines()) == 1
    assert machine.ask("status", "--output", "json").out == "[]\n"


def test_all_problems_are_reported_together(machine: Machine) -> None:
    ended = machine.ask("run", "nocolon", "-p", "0", "--run", "A", PIECEWORK_RETRIES="many")

    assert ended.code == 2
    for problem in ("HANDLER 'nocolon'", "--parallelism", "run id 'A'", "PIECEWORK_RETRIES", "no items"):
        assert problem in ended.err


def test_options_from_the_environment(machine: Machine) -> None:
    machine.environ |= {
        "PIECEWORK_HANDLER": "tasks:batched",
        "PIECEWORK_BATCH": "true",
        "PIECEWORK_RANGE": "0:6",
        "PIECEWORK_RUN": "from-env",
        "PIECEWORK_RESULTS": "out.jsonl",
        "PIECEWORK_CHUNK_SIZE": "2",
    }

    ended = machine.run("run")

    assert (ended.code, ended.out, ended.run) == (0, "", "from-env")
    lines = (machine.home / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["result"] for line in lines] == [0, 1, 4, 9, 16, 25]


# --- results


def test_results_come_in_order_as_soon_as_they_are_in_order(machine: Machine) -> None:
    """Item 0 is done at once; the gate holds the others up. Its line must not wait for them."""
    command = machine.start("run", "tasks:gated", "--range", "0:8", "--chunk-size", "2")
    eventually(lambda: command.out, 20.0, "the first result")
    assert json.loads(command.out) == {"index": 0, "item": 0, "result": 0}

    (machine.home / "gate").touch()
    ended = command.ended()

    assert ended.code == 0
    assert ended.lines == SQUARES[:8]


def test_what_handlers_print_is_in_the_logs_and_not_between_the_results(machine: Machine) -> None:
    ended = machine.run("run", "tasks:prints", "--range", "0:4", "-p", "1")

    assert [line["result"] for line in ended.lines] == [0, 1, 2, 3]
    assert "said by the handler" not in ended.err
    assert "said by the handler 3" in (machine.state_dir / "logs" / ended.run / "worker-0.log").read_text()


@pytest.mark.parametrize("target", ["out.jsonl", "none"])
def test_results_elsewhere(machine: Machine, target: str) -> None:
    (machine.home / "out.jsonl").write_text("of another run\n" * 1000)

    ended = machine.run("run", "tasks:square", "--range", "0:20", "--results", target)

    assert (ended.code, ended.out) == (0, "")
    if target != "none":
        lines = (machine.home / target).read_text().splitlines()
        assert [json.loads(line) for line in lines] == SQUARES


def test_a_command_that_is_refused_leaves_the_results_of_another_one(machine: Machine) -> None:
    (machine.home / "out.jsonl").write_text("precious\n")
    machine.ask("submit", "tasks:square", "--range", "0:20", "--run", "r1")
    refused = machine.ask("run", "tasks:square", "--range", "0:21", "--run", "r1", "--results", "out.jsonl")
    assert refused.code == 2
    assert (machine.home / "out.jsonl").read_text() == "precious\n"


def test_reduce_prints_what_it_makes_of_the_results(machine: Machine) -> None:
    ended = machine.run("run", "tasks:square", "--range", "0:20", "--reduce", "tasks:total")
    assert (ended.code, ended.out) == (0, f"total {sum(x * x for x in range(20))}\n")

    again = machine.run("run", "tasks:square", "--range", "0:20", "--run", ended.run, "--reduce", "tasks:bad_total")
    assert (again.code, again.out) == (3, "")
    assert "ValueError: cannot add" in again.err
    assert f"the results are there: piecework results {ended.run}" in again.err


@pytest.mark.parametrize("output", ["stdout", "file"])
def test_results_that_cannot_be_written_end_it_in_a_line(machine: Machine, output: str) -> None:
    command = ["run", "tasks:square", "--range", "0:20", "--run", "r1"]
    if output == "file":
        ended = machine.run(*command, "--results", "/dev/full")
    else:
        with Path("/dev/full").open("wb") as full:
            ended = machine.start(*command, stdout=full.fileno()).ended()

    assert ended.code == 3
    assert "No space left on device" in ended.err
    assert "Traceback" not in ended.err


def test_a_reader_that_leaves_ends_it_quietly(machine: Machine) -> None:
    reading, writing = os.pipe()
    command = machine.start("run", "tasks:noted", "--range", "0:500", stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        assert json.loads(lines.readline())["index"] == 0

    ended = command.ended()

    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert "Broken" not in ended.err
    assert f"go on with: piecework run tasks:noted --range 0:500 --run {ended.run}" in ended.err


# --- verdicts


def test_failed_items_are_exit_1_and_name_the_next_step(machine: Machine) -> None:
    ended = machine.run("run", "tasks:odd_fails", "--range", "0:4")
    reduced = machine.run("run", "tasks:odd_fails", "--range", "0:4", "--run", ended.run, "--reduce", "tasks:total")

    assert (reduced.code, reduced.out) == (1, "")
    assert "not reduced: not every item has a result" in reduced.err
    assert ended.code == 1
    assert ended.lines[1] == {"index": 1, "item": 1, "error": {"type": "ValueError", "message": "1 is odd"}}
    assert f"see: piecework failures {ended.run}; after a fix: piecework retry {ended.run}" in ended.err


def test_the_failure_budget_is_exit_3(machine: Machine) -> None:
    ended = machine.run("run", "tasks:odd_fails", "--range", "0:1000", "--chunk-size", "5", "--max-failures", "3")

    assert ended.code == 3
    assert re.search(r"failed: \d+ items failed, more than --max-failures allows \(3\)", ended.err)


def test_a_run_whose_items_all_fail_says_so_while_it_goes_on(machine: Machine) -> None:
    command = machine.start("run", "tasks:no_database", "--range", "0:30", "--run", "r1")
    told = "items so far have failed; see: piecework failures r1; Ctrl-C stops; --max-failures N would end"
    eventually(lambda: told in command.err, message=lambda: command.err)
    (machine.home / "gate").touch()
    ended = command.ended()
    assert ended.code == 1
    assert ended.err.count(told) == 1


@pytest.mark.parametrize("handler", ["tasks:nothing_there", "no_such_module:f"])
def test_a_bad_handler_is_exit_3_at_once_and_the_same_command_works_after_the_fix(
    machine: Machine, handler: str
) -> None:
    ended = machine.run("run", handler, "--range", "0:4", "--run", "r1")

    assert ended.err.count("piecework-worker: exit") == 1, "not a worker after the other"
    assert ended.code == 3
    assert handler.partition(":")[2 if "tasks" in handler else 0] in ended.err
    assert "exit 78" in ended.err
    module, _, name = handler.partition(":")
    with (machine.home / f"{module}.py").open("a") as file:
        file.write(f"\n\ndef {name}(item): return item\n")

    again = machine.run("run", handler, "--range", "0:4", "--run", "r1")

    assert again.code == 0, again.err
    assert [line["result"] for line in again.lines] == [0, 1, 2, 3]


def test_the_four_failures_and_retry_after_the_fix(machine: Machine) -> None:
    ended = machine.run(
        "run", "tasks:four_failures", "--range", "0:12", "--item-timeout", "0.5", "--run", "four", within=60
    )
    assert ended.code == 1, ended.err
    errors = {line["index"]: line["error"] for line in ended.lines if "error" in line}
    assert {index: error["type"] for index, error in errors.items()} == {
        3: "ValueError", 5: "Crash", 7: "TimeoutError", 9: "Unstorable"
    }  # fmt: skip
    assert all(error["message"] for error in errors.values())
    assert "object" in errors[9]["message"]
    assert [line["result"] for line in ended.lines if "result" in line] == [0, 1, 2, 4, 6, 8, 10, 11]

    (machine.home / "fixed").touch()
    retried = machine.run("retry", "four")

    assert retried.code == 0, retried.err
    assert "4 failed items are open again" in retried.err
    results = machine.ask("results", "four").lines
    assert [line["result"] for line in results] == list(range(12))


def test_other_specifications_and_items_are_refused(machine: Machine) -> None:
    machine.run("run", "tasks:square", "--range", "0:5", "--run", "r1")
    for arguments, field in (
        (("tasks:square", "--range", "0:6"), "total"),
        (("tasks:echo", "--range", "0:5"), "handler"),
        (("tasks:square", "--range", "0:5", "--retries", "1"), "retries"),
    ):
        ended = machine.ask("run", *arguments, "--run", "r1")
        assert ended.code == 2
        assert f"run r1 exists with another specification: its {field} is" in ended.err


@pytest.mark.parametrize("parallelism", [1, 3, 4])
def test_any_number_of_workers(machine: Machine, parallelism: int) -> None:
    command = machine.start("run", "tasks:gated", "--range", "0:20", "-p", str(parallelism))
    eventually(lambda: len(machine.workers()) == parallelism, 20.0)
    (machine.home / "gate").touch()
    ended = command.ended()
    assert (ended.code, ended.lines) == (0, SQUARES)


def test_exec_with_a_shell(machine: Machine) -> None:
    ended = machine.run("run", "--exec", "echo {}{} | cat", "--shell", "--range", "0:4", "-p", "1")
    assert ended.code == 0, ended.err
    assert [line["result"] for line in ended.lines] == ["00", "11", "22", "33"]


# --- elsewhere


def test_submit_starts_nothing_and_prints_the_id(machine: Machine) -> None:
    ended = machine.run("submit", "tasks:square", "--range", "0:20", "--run", "later")

    assert (ended.code, ended.out) == (0, "later\n")
    assert "submitted: run later running: 0/20 items" in ended.err
    again = machine.ask("submit", "tasks:square", "--range", "0:20", "--run", "later")
    assert (again.code, again.out) == (0, "later\n")
    assert "there already: run later running: 0/20" in again.err

    drained = machine.run("retry", "later", "-p", "1")
    assert drained.code == 0
    assert machine.ask("results", "later").lines == SQUARES


def test_a_password_is_never_shown(machine: Machine) -> None:
    with ServerProcess("--requirepass", "sesame") as server:
        url = f"unix://:sesame@{server.socket}"
        shown: list[str] = []
        command = machine.start("run", "tasks:gated", "--range", "0:4", "--redis", url)
        eventually(machine.workers, 20.0)
        shown += [command_line(pid) for pid in machine.processes() if pid != command.process.pid]
        command.ctrl_c()
        ended = command.ended()
        assert ended.code == 130, ended.err
        shown.append(ended.err)
        shown += [path.read_text() for path in machine.state_dir.rglob("*.log")]
        for arguments in (
            ("submit", "tasks:square", "--range", "0:4", "--redis", url),
            ("doctor", "--redis", url),
            ("status", "--redis", url),
            ("status", "--redis", url.replace("sesame", "sesame@wrong")),
            ("status", "--redis", "redis://:sesame"),
        ):
            asked = machine.ask(*arguments)
            shown += [asked.out, asked.err]
        assert "sesame" not in "".join(shown)

        apart = machine.ask("status", PIECEWORK_REDIS=f"unix://{server.socket}", PIECEWORK_REDIS_PASSWORD="sesame")
        assert apart.code == 0
        assert ended.run in apart.out


# --- a terminal


def test_a_terminal_gets_a_bar_and_results_of_their_own_lines(machine: Machine) -> None:
    master, slave = pty.openpty()
    machine.environ |= {"TERM": "xterm", "COLUMNS": "120"}
    command = machine.start("run", "tasks:noted", "--range", "0:40", "--chunk-size", "5", stdout=slave, stderr=slave)
    os.close(slave)
    shown = _read_terminal(master)
    assert command.ended().code == 0

    assert "━" in shown
    assert re.search(r"\d+/40", shown)
    assert "1 worker" in shown
    screen = _as_displayed(shown)
    assert [json.loads(line) for line in screen if line.startswith("{")] == [
        {"index": index, "item": index, "result": index * index} for index in range(40)
    ]
    assert not any("━" in line for line in screen), "the bar is gone in the end"
    assert len([line for line in screen if line]) == 42, screen


def _read_terminal(master: int) -> str:
    data = b""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            data += piece
    os.close(master)
    return data.decode()


def _as_displayed(shown: str) -> list[str]:
    """What is on the screen after it: carriage returns, erased lines, the cursor one up."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            if token.endswith("K"):
                lines[row] = "" if "2" in token else lines[row][:column]
            elif token.endswith("A"):
                row = max(0, row - int(token[2:-1] or 1))
        else:
            old = lines[row].ljust(column)
            lines[row] = old[:column] + token + old[column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def test_the_command_is_also_a_module_of_python(machine: Machine) -> None:
    assert machine.run("--version").out.startswith("piecework ")
    script = Path(sys.executable).parent / "piecework"
    assert script.exists()
