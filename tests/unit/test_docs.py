"""The documents tell the truth: commands exist or are run, links resolve, the tests that are named exist.

A ```console block of README.md and docs/handlers.md is run, with the Python blocks of its section (whose
first line names the file) in the current directory. `$ ` begins a command; what follows is its output,
standard error included. Times, rates and generated run ids may differ, and `…` stands for anything.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from piecework import keys
from piecework.scripts import VERBS
from piecework_producer.cli.app import FILES, verbs_of
from piecework_producer.embedded import EmbeddedServer
from piecework_worker.settings import _parser

ROOT = Path(__file__).parents[2]
RUN_ALOUD = ("README.md", "docs/handlers.md")
DOCUMENTS = (
    *("README.md", "CHANGELOG.md", "bench/README.md", "examples/README.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
OURS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
GUARANTEES = OURS["docs/guarantees.md"]


@dataclass
class Block:
    """A fenced block."""

    language: str
    text: str


@dataclass
class Section:
    """What stands below one heading of the second level."""

    document: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.document}: {self.title}"


def sections(document: str) -> Iterator[Section]:
    """The sections of a document with the fenced blocks in each."""
    section, block = Section(document, ""), None
    for line in OURS[document].splitlines():
        if block is not None:
            if line.strip() == "```":
                section.blocks.append(block)
                block = None
            else:
                block.text += line + "\n"
        elif line.startswith("```"):
            block = Block(line.removeprefix("```").strip(), "")
        elif line.startswith("## "):
            yield section
            section = Section(document, line.removeprefix("## "))
    assert block is None, f"{document}: a fenced block that does not end"
    yield section


ALL_SECTIONS = [section for document in OURS for section in sections(document)]
TO_RUN = [
    section
    for section in ALL_SECTIONS
    if section.document in RUN_ALOUD and any(block.language == "console" for block in section.blocks)
]


# --- commands are run


def exchanges(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the output that it is said to give."""
    command, output = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line.removeprefix("$ "), []
        else:
            output.append(line)
    yield command, output


_VARIES = [
    (re.compile(r"\d[\d.,]*(s|m\d+s)\b"), "TIME"),
    (re.compile(r"\d[\d.,]*(e[+-]?\d+)? items/s"), "RATE items/s"),
    (re.compile(r"\d[\d.,]*(e[+-]?\d+)?/s"), "RATE/s"),
    (re.compile(r"-\d{8}-\d{4}-[0-9a-f]{4,}\b"), "-ID"),
    (re.compile(r" {2,}"), "  "),
]
_PROGRESS = re.compile(r"piecework: (run \S+ running: |worker \d+ )")
"""How far it has got, at times that differ."""


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, word in _VARIES:
        line = pattern.sub(word, line)
    return line.rstrip()


def agrees(said: list[str], shown: list[str]) -> bool:
    """Whether the output is what the document shows."""
    pattern = ""
    for line in (plain(line) for line in said if not _PROGRESS.match(line)):
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(map(re.escape, line.split("…"))) + r"\n"
    text = "".join(plain(line) + "\n" for line in shown if not _PROGRESS.match(line))
    return re.fullmatch(pattern, text) is not None


def bash(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would, with a state directory of its own."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "PIECEWORK_STATE_DIR": str(directory / "state"),
        "PIECEWORK_PARALLELISM": "2",
        "EXAMPLES": str(ROOT / "examples"),
    }
    return subprocess.run(
        ["bash", "-ec", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("section", TO_RUN, ids=str)
def test_commands_do_what_is_shown(section: Section, tmp_path: Path) -> None:
    code = 0
    (tmp_path / "words.txt").write_text("one\ntwo\n")  # of an earlier section
    with EmbeddedServer(tmp_path / "state"):  # so that each command need not start and stop one
        for block in section.blocks:
            if block.language == "python" and (name := re.match(r"# (\w+\.py)\n", block.text)):
                (tmp_path / name[1]).write_text(block.text)
            if block.language != "console":
                continue
            for command, said in exchanges(block.text):
                script = f"echo {code}" if command == "echo $?" else command
                done = bash(script, tmp_path)
                code = done.returncode
                shown = done.stdout.splitlines()
                assert agrees(said, shown), f"$ {command}\n{done.stdout}\nthe document says:\n" + "\n".join(said)


def test_examples_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path, dirs_exist_ok=True)
    commands = next(
        block.text for section in sections("examples/README.md") for block in section.blocks if block.language == "sh"
    )
    with EmbeddedServer(tmp_path / "state"):
        done = bash(commands, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "\n78498\n" in done.stdout
    assert '"written":true' in done.stdout
    assert "4 of 4 done, 0 failed: succeeded" in done.stdout


def test_what_agrees() -> None:
    assert agrees(["a", "…"], ["a", "b", "c"])
    assert agrees(["run x succeeded in 1.2s (3.4 items/s)"], ["run x succeeded in 2m3s (1,234.5 items/s)"])
    assert agrees(["message: …end"], ["message: anything and the end"])
    assert not agrees(["a"], ["a", "b"])
    assert not agrees(["a", "b"], ["a"])
    assert not agrees(['{"result":1}'], ['{"result":2}'])


# --- commands that are only shown exist


def options_of_piecework() -> dict[str, set[str]]:
    """The options of each verb of the command line."""
    verbs = {name: verb for file in FILES for name, verb in verbs_of(file).items()}
    return {
        name: {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
        | {"--help", "-h"}
        for name, verb in verbs.items()
    }


def options_of_schedule() -> dict[str, set[str]]:
    """The options of each verb of `piecework schedule`; `create` is the one that need not be named."""
    group = verbs_of("schedule")["schedule"]
    return {
        name: {option for parameter in verb.params for option in parameter.opts} | {"--help", "-h"}
        for name, verb in group.commands.items()
    }


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    """All calls of piecework and piecework-worker in fenced blocks, and in `code` in tables and prose."""
    for document, text in OURS.items():
        fenced = "\n".join(
            block.text for section in ALL_SECTIONS if section.document == document for block in section.blocks
            if block.language in ("console", "sh", "")
        )  # fmt: skip
        for line in fenced.replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|[|;&] *|\$ )(piecework(?:-worker)? [^|;&>#]*)", line):
                yield document, words(call)
        prose = re.sub(r"(?ms)^```.*?^```", "", text)
        for call in re.findall(r"`(piecework(?:-worker)? [^`]*)`", prose):
            yield document, words(call)


def words(call: str) -> list[str]:
    try:
        return shlex.split(call)
    except ValueError:
        return call.split()


def test_commands_and_options_exist() -> None:
    verbs = options_of_piecework()
    worker = {option for action in _parser()._actions for option in action.option_strings}
    calls = list(shown_commands())
    assert len(calls) > 50
    unknown = []
    for document, (program, *arguments) in calls:
        known = worker
        if program == "piecework":
            verb = arguments.pop(0)
            if verb in ("--help", "-h", "--install-completion", "--show-completion", "VERB", "…"):
                continue
            known = verbs.get(verb, set())
            if verb == "schedule":
                schedule = options_of_schedule()
                known = schedule.get(arguments[0] if arguments else "create", schedule["create"])
            if not known:
                unknown.append(f"{document}: piecework {verb}")
            if "--" in arguments:  # what follows is another program's
                arguments = arguments[: arguments.index("--")]
        given = {argument.partition("=")[0] for argument in arguments if re.match(r"--?[a-z]", argument)}
        unknown += [f"{document}: {program} {option}" for option in sorted(given - known)]
    assert not unknown


def test_each_command_for_kubernetes_is_looked_at() -> None:
    """The commands of docs/kubernetes.md are shown, not run: what is checked are their verbs and options."""
    calls = [call for document, call in shown_commands() if document == "docs/kubernetes.md"]
    verbs = {call[1] for call in calls if len(call) > 1}
    assert {"submit", "status", "wait", "logs", "scale", "pause", "resume", "cancel", "delete", "schedule"} <= verbs
    text = OURS["docs/kubernetes.md"]
    known = set[str]().union(*options_of_piecework().values(), *options_of_schedule().values())
    of_others = {"--cni", "--from-file", "--no-cache-dir", "--tag", "--user"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", text))
    assert named - of_others <= known
    assert "<!--" not in text


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document, text in OURS.items():
        code = [
            *re.findall(r"`make ([a-z0-9-]+)", text),
            *re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE),
        ]
        assert set(code) <= targets, document


def test_variables_are_settings() -> None:
    """Each PIECEWORK_… variable is a setting, or one that a command or a worker gets."""
    given = {
        "RUN",
        "INDEX",
        "ATTEMPT",
        "IDEMPOTENCY_KEY",
        "TERMINATION_LOG",
        "REDIS_PASSWORD",
        "REDIS_TLS_DIR",
        "SCHEDULED_TIME",
        "STATE_DIR",
        "REDIS",
    }
    options = {option for verb in options_of_piecework().values() for option in verb}
    for document, text in OURS.items():
        for name in re.findall(r"PIECEWORK_([A-Z_]+)", text):
            assert name in given or f"--{name.lower().replace('_', '-')}" in options, f"{document}: PIECEWORK_{name}"


# --- messages

PACKAGES = (ROOT / "piecework", ROOT / "producer", ROOT / "worker")


@cache
def texts_in_the_code() -> str:
    """All strings of the code, one on a line, with `…` for what is filled in."""
    texts = []
    for file in (file for package in PACKAGES for file in package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts))
    return "\n".join(texts)


def test_messages_that_are_explained_are_in_the_code() -> None:
    table = OURS["docs/operations.md"].partition("## Troubleshooting")[2].partition("## ")[0]
    messages = re.findall(r"^\| (?:a run stands still, )?`([^`]+)`", table, re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        for fragment in re.split(r"…|\b[A-Z]\b:?|FILE, line|WORKERS 0|SIGKILL", message):
            if len(fragment.strip()) > 6:
                assert fragment.strip() in texts_in_the_code(), message


# --- names


def test_links_resolve() -> None:
    for document, text in OURS.items():
        here = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = here / path if path else ROOT / document
            assert file.exists(), f"{document}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {slug(heading) for heading in headings}, f"{document}: {target}"


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def names_of_tests(file: Path) -> set[str]:
    """Names of the tests of a module: functions, classes, and what is assigned."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if name.lower().startswith("test")}


def test_named_tests_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", "\n".join(OURS.values()))
    assert len(named) > 50
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists() or (test and test not in names_of_tests(ROOT / file))
    ]
    assert not missing


def test_each_guarantee_is_one_line_and_names_its_tests() -> None:
    promises = re.findall(r"^\*\*G(\d+)\*\* (.*)$", GUARANTEES, re.MULTILINE)
    assert [int(number) for number, _ in promises] == list(range(1, len(promises) + 1))
    assert len(promises) >= 20
    for number, text in promises:
        assert re.search(r"`tests/[\w/]+\.py(::\w+)?`", text), f"G{number} names no test"


def test_guarantees_that_are_referred_to_exist() -> None:
    numbers = {int(number) for number in re.findall(r"^\*\*G(\d+)\*\*", GUARANTEES, re.MULTILINE)}
    for document, text in OURS.items():
        assert {int(number) for number in re.findall(r"\bG(\d+)\b", text)} <= numbers, document


def test_each_key_and_each_script_is_described() -> None:
    text = OURS["docs/architecture.md"]
    for name in keys.RunKeys.__dataclass_fields__:
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), f"the key {name}"
    described = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert described == set(VERBS)


def test_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[?{re.escape(version)}\]?", OURS["CHANGELOG.md"], re.MULTILINE)
