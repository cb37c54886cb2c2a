"""Run ids, and the names of keys and RQ jobs that are made of them."""

import dataclasses
import re

import pytest

from piecework.errors import UsageError
from piecework.keys import CONTRACT, RunKeys, checked_run_id, chunk_of_job, job_id, queue_name, run_keys


@pytest.mark.parametrize("run", ["a", "0", "a1", "convert-20261121-1830-5f3a", "a--b", "x" * 48])
def test_run_ids(run: str) -> None:
    assert checked_run_id(run) == run


@pytest.mark.parametrize(
    "run", ["", "-", "-a", "a-", "A", "a_b", "a.b", "a b", "a:b", "a/b", "ä", "٣", "a\n", "x" * 49]
)
def test_what_is_no_run_id(run: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(run)) + ".*1 to 48"):
        checked_run_id(run)


def test_names() -> None:
    assert queue_name("pi") == "piecework-pi"
    assert job_id("pi", 3) == "piecework-pi-3"


@pytest.mark.parametrize("run", ["pi", "a-1", "1", "x" * 48])
@pytest.mark.parametrize("chunk", [1, 10, 10**15])
def test_chunk_of_its_own_job(run: str, chunk: int) -> None:
    assert chunk_of_job(run, job_id(run, chunk)) == chunk


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "-",
        "piecework-pi",
        "piecework-pi-",
        "piecework-pi-0",
        "piecework-pi-01",
        "piecework-pi--1",
        "piecework-pi-1.0",
        "piecework-pi-1\n",
        "piecework-pi- 1",
        "piecework-pi-٣",
        "piecework-pi-²",
        "piecework-pi-1_0",
        "piecework-pi-1-1",
        "piecework-pie-1",
        "piecework-p-1",
        "6f1d0c5e-0d3c-4d6a-9a55-2c1e5a8f3b1d",
        "piecework-pi-" + "9" * 5000,
    ],
)
def test_foreign_jobs_are_no_chunks(foreign: str) -> None:
    assert chunk_of_job("pi", foreign) is None


def test_a_run_does_not_take_the_jobs_of_another_whose_id_begins_alike() -> None:
    assert chunk_of_job("a", job_id("a-1", 2)) is None
    assert chunk_of_job("a-1", job_id("a", 1)) is None


def test_all_keys_are_distinct_and_name_run_and_contract() -> None:
    keys = run_keys("pi")
    names = keys.as_list()
    assert len(set(names)) == len(names)
    assert keys.run == f"piecework:{CONTRACT}:pi:run"
    shared = {keys.runs, keys.queues, keys.all_rq_workers, keys.suspended}
    assert all("pi" in name.removeprefix("piecework:").replace("wip", "") for name in names if name not in shared)


def test_each_key_is_documented_with_its_type() -> None:
    import inspect

    source = inspect.getsource(RunKeys)
    for field in dataclasses.fields(RunKeys):
        about = re.search(rf'    {field.name}: str\n    """(.*)', source)
        assert about, field.name
        assert re.match(r"(HASH|ZSET|LIST|SET|STREAM|STRING|Prefix of the HASHes)\b", about[1]), field.name


def test_runs_share_only_what_is_shared() -> None:
    mine, theirs = run_keys("a"), run_keys("a-1")
    shared = {name for name in mine.as_list() if name in theirs.as_list()}
    assert shared == {mine.runs, mine.queues, mine.all_rq_workers, mine.suspended}
    assert run_keys("runs").run != mine.runs
