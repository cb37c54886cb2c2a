"""The worker's command line and environment."""

from pathlib import Path

import pytest

from piecework.errors import UsageError
from piecework.quantity import item_memory_bytes
from piecework_worker.ending import termination_log
from piecework_worker.settings import WorkerSettings, parse

LEAST = ["nightly", "--redis", "redis://h", "--handler", "m:f"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*WorkerSettings.model_fields, "termination_log"):
        monkeypatch.delenv(f"PIECEWORK_{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = parse(LEAST)
    assert (settings.lease, settings.patience, settings.grace) == (15, 60, 20)
    assert (settings.isolation, settings.concurrency, settings.batch) == ("process", 1, False)
    assert settings.handler_text == "m:f"


def test_command_line_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RUN": "other",
        "REDIS": "redis://e",
        "HANDLER": "e:e",
        "LEASE": "9",
        "BATCH": "true",
    }.items():
        monkeypatch.setenv(f"PIECEWORK_{name}", value)
    settings = parse([])
    assert (settings.run, settings.handler, settings.lease, settings.batch) == ("other", "e:e", 9, True)
    assert parse([*LEAST, "--lease", "3"]).lease == 3
    assert parse(LEAST).run == "nightly"


def test_speculation_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not parse(LEAST).speculate
    assert parse([*LEAST, "--speculate"]).speculate
    monkeypatch.setenv("PIECEWORK_SPECULATE", "true")
    assert parse(LEAST).speculate


def test_command_as_a_handler() -> None:
    settings = parse(["nightly", "--redis", "redis://h", "--exec", "gzip {}"])
    assert settings.handler_text == "exec:gzip {}"
    assert parse([*LEAST[:3], "--exec", "gzip {}", "--shell"]).handler_text == "shell:gzip {}"


def test_password_apart_from_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_REDIS_PASSWORD", "hun/ter2")
    assert parse(LEAST).redis_url == "redis://:hun%2Fter2@h"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["RUN is missing", "--redis is missing", "--handler"]),
        (["Nightly", *LEAST[1:]], ["run id 'Nightly'"]),
        ([*LEAST, "--exec", "x"], ["either --handler"]),
        ([*LEAST, "--shell"], ["--shell and --stdin go with --exec"]),
        ([*LEAST[:3], "--exec", "x", "--batch"], ["--batch and --concurrency go with --handler"]),
        ([*LEAST, "--batch-size", "5"], ["--batch-size goes with --batch"]),
        (
            [*LEAST, "--isolation", "none", "--item-timeout", "5"],
            ["--item-timeout needs --isolation process"],
        ),
        ([*LEAST[:3], "--exec", "x", "--isolation", "none"], ["--exec needs --isolation process"]),
        ([*LEAST, "--isolation", "thread"], ["--isolation (PIECEWORK_ISOLATION)", "'thread'"]),
        ([*LEAST, "--lease", "0.5", "--grace", "x", "--stdin"], ["--lease", "--grace", "'x'", "--stdin"]),
        ([*LEAST, "--concurrency", "0", "--patience", "-1"], ["--concurrency", "--patience"]),
        ([*LEAST, "--no-such-option"], ["--no-such-option", "--help"]),
        ([*LEAST, "more"], ["more"]),
    ],
)
def test_all_problems_are_told_together(arguments: list[str], says: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_termination_log(monkeypatch: pytest.MonkeyPatch) -> None:
    assert termination_log() == Path("/dev/termination-log")
    monkeypatch.setenv("PIECEWORK_TERMINATION_LOG", "/some/where")
    assert termination_log() == Path("/some/where")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    for name in WorkerSettings.model_fields:
        if name not in (
            "run",
            "redis_password",
            "redis_tls_dir",
            "scheduled_time",
        ):  # three come from the environment only
            assert f"--{name.replace('_', '-')}" in told


def test_item_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_ITEM_MEMORY", "512Mi")
    assert parse(["r", "--redis", "redis://h", "--handler", "m:f"]).item_memory == "512Mi"
    for wrong in ("512", "1M", "-5G", "5GB", "nan", "1e9", "٣G", ""):
        with pytest.raises(UsageError) as caught:
            parse(["r", "--redis", "redis://h", "--handler", "m:f", f"--item-memory={wrong}"])
        told = f"--item-memory {wrong!r} is not a size such as 512M, 2G or 512Mi, of at least 16Mi"
        assert str(caught.value) == told
    with pytest.raises(UsageError, match="--item-memory needs --isolation process"):
        parse(["r", "--redis", "redis://h", "--handler", "m:f", "--isolation", "none"])
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="--item-memory needs Linux"):
        parse(["r", "--redis", "redis://h", "--handler", "m:f"])


@pytest.mark.parametrize(
    ("text", "size"),
    [("17000000", 17_000_000), ("512M", 512 * 10**6), ("1.5G", 15 * 10**8), ("512Mi", 512 << 20), ("2Gi", 2 << 30)],
)
def test_sizes_are_those_of_kubernetes(text: str, size: int) -> None:
    assert item_memory_bytes(text) == size
