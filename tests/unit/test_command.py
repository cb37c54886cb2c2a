"""`--exec`: how a command is made of a template and an item, and what its end becomes."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from piecework.context import Context
from piecework.errors import HandlerUnusable
from piecework_worker.command import CommandFailed, command, in_shell

ENVIRON = {"PATH": "/usr/bin:/bin", "PIECEWORK_REDIS": "redis://:hidden@h", "MINE": "shown"}


def ran(template: str, item: Any, *, shell: bool = False, stdin: bool = False) -> object:
    run = command(template, shell=shell, stdin=stdin, environ=ENVIRON)
    with Context("nightly", 2, lambda: 41):
        return run(item)


@pytest.mark.parametrize(
    ("template", "item", "result"),
    [
        ("echo", "a b", "a b"),
        ("echo {}", "a b", "a b"),
        ("printf %s|%s {} {}.gz", "a b", "a b|a b.gz"),
        ("echo '{} and' {}", "x", "x and x"),
        ("echo", 5, "5"),
        ("echo", 2**70, str(2**70)),
        ("echo", {"ä": [1, None]}, '{"ä":[1,null]}'),
        ("echo", None, "null"),
        ("echo", "$HOME `x` {} *", "$HOME `x` {} *"),
        ("printf %s", "", ""),
        ("printf 'a\\n\\nb\\n\\n'", "", "a\n\nb"),
        ("printf '\\377'", "", b"\xff"),
    ],
)
def test_without_a_shell(template: str, item: object, result: object) -> None:
    assert ran(template, item) == result


HOSTILE = [
    "a b",
    "",
    "$(id)",
    "`id`",
    "'",
    '"',
    "\\",
    "; id",
    "* ?",
    "-n",
    "{}",
    "${1}",
    "a\nb",
    "|id",
    "ä",
    "'\"$(id)\"'",
]


@pytest.mark.parametrize("item", HOSTILE)
def test_shell_gets_the_item_as_data(item: str) -> None:
    template = "printf '%s|' x{}y \"{}\" 'a {} b' \\{} \"it's {}\" 'say \"{}\"'"
    expected = [f"x{item}y", item, f"a {item} b", item, f"it's {item}", f'say "{item}"']
    assert ran(template, item, shell=True) == "".join(f"{each}|" for each in expected)


def test_shell_is_one() -> None:
    assert ran("test {} && for i in 1 2; do echo $i; done | wc -l", "x", shell=True) == "2"
    assert ran("cat {} | wc -c", "/dev/null", shell=True) == "0"
    assert ran("tr a b", {"a": 1}, shell=True, stdin=True) == '{"b":1}'


@pytest.mark.skipif(shutil.which("bash") is None, reason="another shell's view")
@pytest.mark.parametrize("item", HOSTILE)
def test_no_item_is_executed_wherever_it_stands(item: str, tmp_path: Path) -> None:
    for template in (
        'echo "$(echo "{}")"',
        "echo `echo {}`",
        "cat <<END\n{}\nEND\n",
        "echo # '{}",
        'x="{}"; echo $x',
    ):
        done = subprocess.run(
            ["bash", "-c", in_shell(template), "sh", item.replace("id", f"touch {tmp_path}/owned")],
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, (template, done.stderr)
        assert not (tmp_path / "owned").exists(), template


def test_standard_input_is_json_or_empty() -> None:
    assert ran("cat", [1, "ä"], stdin=True) == '[1,"ä"]'
    assert ran("sh -c 'cat; echo $#' sh", "x", stdin=True) == '"x"1'.replace("1", "0")
    assert ran("sh -c cat", "x") == ""
    assert ran("true", "x" * 1_000_000, stdin=True) == ""


def test_environment() -> None:
    told = str(ran("env", "x", stdin=True)).splitlines()
    assert "MINE=shown" in told
    assert {line for line in told if line.startswith("PIECEWORK_")} == {
        "PIECEWORK_RUN=nightly",
        "PIECEWORK_INDEX=41",
        "PIECEWORK_ATTEMPT=2",
        "PIECEWORK_IDEMPOTENCY_KEY=nightly/41",
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exit code 3"),
        ("echo why >&2; exit 1", "exit code 1: why"),
        ("kill -TERM $$", "killed by SIGTERM"),
        ("kill -40 $$", "killed by signal 40"),
        ("printf '\\377 bad' >&2; exit 9", "exit code 9: \ufffd bad"),
    ],
)
def test_failures(script: str, message: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        ran(script, "x", shell=True, stdin=True)
    assert str(caught.value) == message


def test_only_the_end_of_standard_error_is_kept() -> None:
    with pytest.raises(CommandFailed) as caught:
        ran("seq 1 100000 >&2; exit 1", "x", shell=True, stdin=True)
    assert str(caught.value).endswith("\n100000")
    assert len(str(caught.value)) < 2100


@pytest.mark.parametrize("item", ["a\0b", "x" * 200_000])
def test_item_that_cannot_be_an_argument(item: str) -> None:
    with pytest.raises((ValueError, OSError)):
        ran("echo", item)


def test_command_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        ran("no-such-command", "x")


@pytest.mark.parametrize("template", ["", "  ", "echo 'x"])
def test_unusable_templates(template: str) -> None:
    with pytest.raises(HandlerUnusable, match="--exec"):
        command(template, shell=False, stdin=False, environ={})
