"""The producer's settings: where they come from, and that all problems are told together."""

from pathlib import Path
from typing import Any

import pytest

from piecework.errors import UsageError
from piecework_producer.settings import CommandSettings, RunSettings, ServerSettings, read


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("PIECEWORK_")]:
        monkeypatch.delenv(name)


def test_an_option_goes_before_the_environment_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIECEWORK_PARALLELISM", "7")
    monkeypatch.setenv("PIECEWORK_RETRIES", "2")
    monkeypatch.setenv("PIECEWORK_STATE_DIR", "/some/where")

    settings = read(RunSettings, {"handler": "m:f", "parallelism": 3, "retries": None})

    assert (settings.parallelism, settings.retries, settings.crash_limit) == (3, 2, 3)
    assert settings.state_dir == Path("/some/where")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_REDIS", "")
    monkeypatch.setenv("PIECEWORK_ITEM_TIMEOUT", "")

    settings = read(RunSettings, {"handler": "m:f"})

    assert settings.redis_url is None
    assert settings.item_timeout is None


def test_all_problems_are_told_together() -> None:
    with pytest.raises(UsageError) as raised:
        read(
            CommandSettings,
            {
                "run": "Bad_Id",
                "parallelism": 0,
                "max_failures": "many",
                "range": "1",
                "lines": "-",
                "isolation": "some",
                "batch_size": 5,
            },
        )

    for part in (
        "run id 'Bad_Id' is not allowed",
        "--parallelism (PIECEWORK_PARALLELISM): Input should be greater than or equal to 1, not 0",
        "--max-failures 'many' is neither",
        "--range '1' is not START:STOP[:STEP]",
        "--isolation (PIECEWORK_ISOLATION)",
        "give either a HANDLER",
        "--batch-size goes with --batch",
        "--range and --lines exclude each other",
    ):
        assert part in str(raised.value)
    assert str(raised.value).count("; ") == 7


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "give either a HANDLER"),
        ({"handler": "m:f", "exec": "cat"}, "give either a HANDLER"),
        ({"handler": "m"}, "not of the form package.module:function"),
        ({"handler": ":f"}, "not of the form"),
        ({"handler": "m:"}, "not of the form"),
        ({"handler": "m:f", "shell": True}, "--shell and --stdin go with --exec"),
        ({"exec": "cat", "batch": True}, "--batch goes with a HANDLER"),
        (
            {"handler": "m:f", "isolation": "none", "item_timeout": 1.0},
            "--item-timeout needs --isolation process",
        ),
        ({"handler": "m:f", "max_failures": "101%"}, "neither a number of items nor a percentage"),
        ({"handler": "m:f", "max_failures": "-1"}, "neither a number of items nor a percentage"),
        ({"handler": "m:f", "item_timeout": 0.0}, "--item-timeout (PIECEWORK_ITEM_TIMEOUT)"),
    ],
)
def test_options_that_do_not_fit_together(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(RunSettings, given)
    assert problem in str(raised.value)


def test_items_that_are_given_take_the_place_of_those_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIECEWORK_RANGE", "0:10")
    monkeypatch.setenv("PIECEWORK_RESULTS", "none")

    assert read(CommandSettings, {"handler": "m:f"}).range == "0:10"
    given = read(CommandSettings, {"handler": "m:f", "lines": "-"})
    assert (given.range, given.lines, given.results) == (None, "-", "none")
    monkeypatch.delenv("PIECEWORK_RANGE")
    with pytest.raises(UsageError, match="no items"):
        read(CommandSettings, {"handler": "m:f"})


def test_a_wrong_variable_is_named_and_verbs_that_do_not_use_it_do_not_mind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIECEWORK_PARALLELISM", "lots")

    with pytest.raises(UsageError, match=r"PIECEWORK_PARALLELISM\).*'lots'"):
        read(RunSettings, {"handler": "m:f"})
    read(ServerSettings, {})


def test_the_password_may_come_apart() -> None:
    settings = read(ServerSettings, {"redis": "redis://me@host:1/2", "redis_password": "p/w"})
    assert settings.redis_url == "redis://me:p%2Fw@host:1/2"


def test_workers_get_what_they_need_and_no_more() -> None:
    settings = read(RunSettings, {"exec": "-weird {}", "stdin": True, "item_timeout": 2.5, "retries": 3})
    settings = settings.model_copy(update={"item_memory": "2G"})

    arguments = settings.worker_arguments()
    assert arguments[arguments.index("--item-memory") + 1] == "2G"

    assert arguments[:2] == ("--exec=-weird {}", "--stdin")
    assert arguments[arguments.index("--item-timeout") + 1] == "2.5"
    assert not {"--retries", "--redis", "--run", "--batch", "--wait-replicas", "--speculate"} & set(arguments)
    waiting = read(RunSettings, {"handler": "m:f", "wait_replicas": 2})
    assert waiting.worker_arguments()[-2:] == ("--wait-replicas", "2")
    assert "--speculate" in read(RunSettings, {"handler": "m:f", "speculate": True}).worker_arguments()
    assert settings.handler_text == "exec:-weird {}"


def test_item_memory_is_a_size_and_needs_a_process() -> None:
    with pytest.raises(UsageError, match="--item-memory '2GB' is not a size"):
        read(RunSettings, {"handler": "m:f", "item_memory": "2GB"})
    with pytest.raises(UsageError, match="--item-memory needs --isolation process"):
        read(RunSettings, {"handler": "m:f", "item_memory": "2G", "isolation": "none"})
