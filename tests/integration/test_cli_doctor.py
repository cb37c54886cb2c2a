"""`piecework doctor`: what it finds on machines that are in order and on those that are not. And what is imported."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_fixture import Machine
from tests.server_fixture import ServerProcess


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def findings(out: str) -> dict[str, tuple[str, str]]:
    lines = [line.split("   ") for line in out.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows[0] == ["CHECK", "VERDICT", "DETAIL"]
    return {what: (verdict, detail) for what, verdict, detail in rows[1:]}


def test_a_machine_in_order(machine: Machine) -> None:
    ended = machine.ask("doctor")

    assert ended.code == 0, ended.out
    found = findings(ended.out)
    assert {verdict for verdict, _ in found.values()} == {"ok"}
    assert found["embedded server"][1] == f"not running now, data in {machine.state_dir}"
    assert found["server"][1].startswith(("valkey ", "redis "))
    assert "append-only file" not in found


def test_a_server_that_runs_is_told_of(machine: Machine) -> None:
    with machine.client():
        assert findings(machine.ask("doctor").out)["embedded server"][1].startswith("runs, ")


def test_what_will_not_work_is_exit_1_with_the_remedy(machine: Machine) -> None:
    away = machine.ask("doctor", "--redis", "redis://:sesame@localhost:1")
    assert away.code == 1
    assert findings(away.out)["server"][0] == "FAIL"
    assert "cannot be reached" in away.out
    assert "sesame" not in away.out + away.err

    with ServerProcess("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru", "--requirepass", "sesame") as server:
        url = f"unix://:sesame@{server.socket}"
        evicting = machine.ask("doctor", "--redis", url)
        assert evicting.code == 1
        assert "CONFIG SET maxmemory-policy noeviction" in evicting.out
        assert "sesame" not in evicting.out
        refused = machine.ask("doctor", "--redis", f"unix://{server.socket}")
        assert refused.code == 1
        assert "refuses the user or password, or asks for one" in refused.out
        for verb in (("status",), ("run", "tasks:square", "--range", "0:3")):
            ended = machine.ask(*verb, "--redis", url)
            assert ended.code == 2
            assert "maxmemory-policy" in ended.err


def test_a_server_that_forgets_is_a_warning(machine: Machine) -> None:
    with ServerProcess("--appendonly", "no") as server:
        ended = machine.ask("doctor", "--redis", server.url)
    assert ended.code == 0
    assert findings(ended.out)["append-only file"] == (
        "warn",
        "off: a restart of the server loses the runs; set appendonly yes",
    )


def test_a_state_directory_that_cannot_be_used(machine: Machine) -> None:
    (machine.directory / "file").write_text("in the way")
    ended = machine.ask("doctor", "--state-dir", str(machine.directory / "file" / "state"))
    assert ended.code == 1
    assert "PIECEWORK_STATE_DIR" in ended.out


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        (
            "from piecework_producer.cli.app import FILES, verbs_of; [verbs_of(file) for file in FILES]",
            ["kubernetes", "rq", "rich", "gmpy2", "piecework_worker", "yaml", "croniter"],
        ),
        (
            "import piecework_producer",
            ["kubernetes", "rq", "rich", "typer", "gmpy2", "piecework_worker"],
        ),
        ("import piecework", ["kubernetes", "rq", "redis", "pydantic", "msgspec", "piecework_producer"]),
    ],
)
def test_imports_are_no_more_than_is_needed(program: str, unwanted: list[str]) -> None:
    told = subprocess.run(
        [sys.executable, "-c", f"{program}; import sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert not set(unwanted) & set(told.stdout.split())
