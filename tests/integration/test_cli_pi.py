"""`piecework pi`: the digits, where they go, and how it goes on. The numbers themselves: `tests/unit/test_pi.py`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_fixture import Machine
from tests.server_fixture import eventually

pytest.importorskip("gmpy2")
PI_2000 = (Path(__file__).parent.parent / "data" / "pi-2000.txt").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def test_2000_digits_on_two_workers(machine: Machine) -> None:
    ended = machine.run("pi", "--digits", "2000", "--parallelism", "2", "--parts", "7")

    assert (ended.code, ended.out) == (0, PI_2000)
    assert re.search(r"2000 digits of pi in .* s: 8 items on 2 workers", ended.err)


def test_a_hundred_thousand_digits_into_a_file(machine: Machine) -> None:
    flint = pytest.importorskip("flint")

    ended = machine.run("pi", "-n", "100000", "--out", "pi.txt")

    assert (ended.code, ended.out) == (0, "")
    assert "written to pi.txt" in ended.err
    digits = (machine.home / "pi.txt").read_text().strip()
    flint.ctx.dps = 100_020
    independent = flint.arb.pi().str(100_010, radius=False)
    assert len(digits) == 100_001
    assert digits[:-1] == independent[: len(digits) - 1]
    assert int(digits[-1]) - int(independent[len(digits) - 1]) == int(independent[len(digits)] >= "5")


def test_the_same_through_the_general_way(machine: Machine) -> None:
    from piecework_worker.pi import ranges

    items = machine.home / "ranges.jsonl"
    items.write_text("".join(f"{json.dumps(item)}\n" for item in ranges(2000, 5)))
    reduction = "def digits(results):\n    from piecework_worker.pi import combine\n    return combine(results, 2000)\n"
    (machine.home / "reduction.py").write_text(reduction)

    ended = machine.run("run", "piecework_worker.pi:terms", "--jsonl", "ranges.jsonl", "--reduce", "reduction:digits")

    assert (ended.code, ended.out) == (0, PI_2000), ended.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--digits", "0"), "digits is 0: give 1 or more"),
        (("--digits", "10", "--parts", "0"), "parts is 0: give 1 or more"),
        (("--digits", "10", "-p", "0"), "--parallelism"),
        (("--digits", "ten"), "valid int"),
        (("--digits", "5", "--out", "no/where"), "--out no/where cannot be written"),
    ],
)
def test_usage_errors(machine: Machine, arguments: tuple[str, ...], problem: str) -> None:
    ended = machine.ask("pi", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.err
    assert machine.ask("status", "-o", "json").out == "[]\n"


def test_stopped_it_goes_on_with_the_same_command(machine: Machine) -> None:
    arguments = ("pi", "--digits", "300000", "--parts", "40", "-p", "1", "--run", "p1")
    command = machine.start(*arguments)
    eventually(lambda: command.process.poll() is not None or (machine.state_dir / "logs" / "p1").exists(), 20.0)
    command.ctrl_c()
    stopped = command.ended()

    if stopped.code:  # else it was quicker
        assert stopped.code == 130
        assert "go on with: piecework pi --digits 300000 --parts 40 -p 1 --run p1" in stopped.err
    ended = machine.run(*arguments)
    assert ended.code == 0
    assert ended.out.startswith(PI_2000[:-3])
    other = machine.ask("pi", "--digits", "300001", "--parts", "41", "--run", "p1")
    assert other.code == 2
    assert "run p1 exists with other items" in other.err
