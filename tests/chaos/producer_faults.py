"""What happens to who submits and launches: killed at any moment and at each call, and two of them at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from piecework.states import State
from tests.chaos import handlers
from tests.chaos.oracle import examine
from tests.chaos.stage import Stage
from tests.cli_fixture import Command, Machine
from tests.server_fixture import eventually
from tests.worker_fixture import ROOT

CALLS = ("open", "fill", "cut", "seal", "hmget", "hget", "info", "status")
LAUNCHER_CALLS = (*CALLS, "note", "reap", "tend", "claim", "xrange", "xread", "pipeline")


def submitting(stage: Stage, handler: str) -> list[str]:
    """The arguments that submit the stage's work; the items come from a file, if it is no range."""
    work = stage.work
    arguments = [handler, "--run", stage.pile.run, "--chunk-size", str(work.chunk), "--crash-limit", "6"]
    arguments += ["--retries", "1"] * bool(work.flaky) + ["--batch"] * handler.endswith("many")
    if work.values is None:
        return [*arguments, "--range", f"0:{work.total}"]
    file = stage.directory / "items.jsonl"
    file.write_text("".join(f"{json.dumps(value)}\n" for value in work.values))
    return [*arguments, "--jsonl", str(file)]


def producers_that_die(stage: Stage) -> None:
    """One or two producers of one run at once, again and again, which die at some call; workers wait for them."""
    arguments = ["submit", *submitting(stage, stage.work.handler)]
    arguments += ["--redis", f"unix://producer:any@{stage.server.socket}"]

    def submit(stage: Stage, *fates: dict[str, str]) -> list[int]:
        command = [sys.executable, "-m", "piecework_producer.cli", *arguments]
        with (stage.directory / "submit").open("ab") as output:
            environs = [os.environ | stage.environ() | fate for fate in fates]
            together = [
                subprocess.Popen(command, cwd=ROOT, env=each, stdout=output, stderr=output) for each in environs
            ]
        return [each.wait(30) for each in together]

    def dying(stage: Stage) -> None:
        submit(stage, *(stage.dying_at(_place(stage, CALLS)) for _ in range(stage.rng.choice([1, 2]))))

    def living(stage: Stage) -> None:
        stage.problems += [f"a producer ended with exit code {code}" for code in submit(stage, {}, {}) if code]

    while not stage.pile.find():
        dying(stage)
    stage.stuck_seconds = 0.2
    stage.play([dying] * stage.faults + [living])
    stage.happened = 0  # those who died are counted by where they did


def launchers_that_die(stage: Stage) -> None:
    """`piecework run` on the embedded server: it, its workers, its server or all of it are killed, and it goes on."""
    home = stage.directory / "machine"
    home.mkdir()
    with Machine(home, 2) as machine:
        shutil.copy(Path(handlers.__file__), machine.home / "squares.py")
        kind = stage.work.handler.partition(":")[2]
        arguments = ["run", *submitting(stage, f"squares:{kind}"), "--lease", "1", "--grace", "2"]
        machine.environ |= stage.environ()
        command = _launch(stage, machine, arguments)
        for number in range(stage.faults):
            needed = stage.work.total * number // (stage.faults + 1)
            eventually(lambda: _has_ended(command) or _recorded(machine, stage) >= needed, 60.0)  # noqa: B023
            before = _recorded(machine, stage)
            if not _has_ended(command):
                stage.rng.choice(FAULTS)(machine, command)
                stage.happened += 1
            if (after := _recorded(machine, stage)) < before:
                stage.problems.append(f"{before} items were recorded, and then {after}")
            if _has_ended(command):
                command = _launch(stage, machine, arguments)
        ended = command.ended(60)
        if ended.code in (-signal.SIGKILL, 130):
            ended = machine.run(*arguments, within=60)
        told = [(line["index"], line.get("result")) for line in ended.lines]
        if ended.code != (0 if stage.work.verdict is State.SUCCEEDED else 1):
            stage.problems.append(f"the command ended with exit code {ended.code}: {ended.err[-500:]}")
        elif told != [(index, stage.work.expected(index)) for index in range(stage.work.total)]:
            stage.problems.append(f"the command told something else than the results: {ended.out[-500:]}")
        with machine.client() as client:
            stage.examined = examine(client, stage.pile.run, stage.work)


def _launch(stage: Stage, machine: Machine, arguments: list[str]) -> Command:
    """Start the command; it, or one of its workers, may die at a call."""
    before = dict(machine.environ)
    machine.environ |= stage.dying_at(_place(stage, LAUNCHER_CALLS)) if stage.rng.random() < 0.5 else {}
    command = machine.start(*arguments)
    machine.environ = before
    return command


def _place(stage: Stage, calls: Sequence[str]) -> str:
    when, number = stage.rng.choice(["before", "after"]), stage.rng.choice([1, 1, 2])
    return f"{when}:{stage.rng.choice(calls)}:{number}:SIGKILL:main"


def _has_ended(command: Command) -> bool:
    return command.process.poll() is not None


def _recorded(machine: Machine, stage: Stage) -> int:
    """How many items are recorded; -1: there is no such run yet."""
    ended = machine.ask("status", stage.pile.run, "--output", "json")
    status = json.loads(ended.out) if ended.code == 0 else {"done": -1, "failed": 0}
    return int(status["done"] + status["failed"])


def _command(machine: Machine, command: Command) -> None:
    command.send(signal.SIGKILL)
    command.ended()


def _everything(machine: Machine, command: Command) -> None:
    machine.kill_everything()
    command.ended()


def _stopped(machine: Machine, command: Command) -> None:
    command.ctrl_c()
    command.ended()


def _suspended(machine: Machine, command: Command) -> None:
    """It is stopped for longer than the leases of its workers, who go on."""
    command.send(signal.SIGSTOP)
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > 1.5)
    command.send(signal.SIGCONT)


def _worker(machine: Machine, command: Command) -> None:
    for pid in machine.workers()[:1]:
        os.kill(pid, signal.SIGKILL)


def _server(machine: Machine, command: Command) -> None:
    for pid in machine.server():
        os.kill(pid, signal.SIGKILL)


FAULTS: tuple[Callable[[Machine, Command], None], ...] = (_command, _everything, _stopped, _suspended, _worker, _server)
