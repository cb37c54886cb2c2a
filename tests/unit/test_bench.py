"""The benchmarks: each says what it measures, has a short form, and is in their README; a missed claim is told."""

import ast
import json
from pathlib import Path

import pytest

from bench._harness import Claim, Table, arguments, interleaved, publish

BENCH = Path(__file__).parents[2] / "bench"
SCRIPTS = sorted(BENCH.glob("[!_]*.py"))
RATES = {"piecework": [30.0, 10.0, 20.0], "slow": [1.0, 2.0, 3.0], "fast": [11.0, 10.0, 9.0]}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_says_what_it_is(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert len((ast.get_docstring(tree) or "").splitlines()) > 1
    assert "arguments" in calls
    assert {"interleaved", "publish"} <= calls or script.name.startswith("scale")
    assert "options.short" in script.read_text() or "in_short=" in script.read_text()
    assert f"| `{script.name}` |" in (BENCH / "README.md").read_text(encoding="utf-8")


def test_a_claim_compares_with_the_best_rival() -> None:
    table = Table("t", "items per second", RATES, claims=[Claim(at_least=2, rivals=["slow", "fast", "absent"])])
    assert table.verdicts() == [("at least 2 times fast", 2.0, True)]
    assert table.lines()[-1] == "  claim: at least 2 times fast: reached 2"
    seconds = Table("t", "seconds", RATES, more_is_better=False, claims=[Claim(at_most=1.5, rivals=["slow", "fast"])])
    assert seconds.verdicts() == [("at most 1.5 times slow", 10.0, False)]
    assert seconds.lines()[-1] == "  CLAIM NOT REACHED: at most 1.5 times slow: reached 10"


def test_a_claim_without_rivals_is_about_the_figure() -> None:
    claims = [Claim(at_most=19.9), Claim(at_least=1, rivals=["absent"])]
    assert Table("t", "bytes", RATES, claims=claims).verdicts() == [("at most 19.9", 20.0, False)]


def test_a_table_may_compare_nobody() -> None:
    table = Table("t", "seconds", {"a": [1.0], "b": [2.0]}, subject="", more_is_better=False)
    assert [line.strip() for line in table.lines()[1:]] == [
        "a  median          1  (1 to 1, n=1)",
        "b  median          2  (2 to 2, n=1)",
    ]


def test_a_script_may_have_options_of_its_own() -> None:
    options = arguments("", ["--seed", "3"], also=lambda parser: parser.add_argument("--seed", type=int))
    assert (options.seed, options.short) == (3, False)


def test_systems_take_turns_and_all_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def measured(name: str) -> float:
        order.append(name)
        return float(len(order))

    figures = interleaved({"piecework": lambda: measured("piecework"), "other": lambda: measured("other")}, 2)
    assert order == ["piecework", "other"] * 2
    options = arguments("", ["--short", "--json", str(tmp_path / "figures.json")])
    publish([Table("title", "seconds", figures)], options, ["a remark"], items=7)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["tables"][0]["figures"] == {"piecework": [1.0, 3.0], "other": [2.0, 4.0]}
    assert written["short"] is True
    assert {"piecework", "rq", "redis"} <= set(written["versions"])
    assert "piecework/this 0.667" in capsys.readouterr().out
