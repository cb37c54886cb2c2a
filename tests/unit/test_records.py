"""Specifications that differ, and failures on their way into and out of a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piecework.codec import unpack
from piecework.errors import CorruptData, SpecConflict
from piecework.records import Failure, Spec, handler_text, pack_failures, to_failure

OTHER = {
    "handler": "m:g",
    "stdin": True,
    "batch": True,
    "items": "lines",
    "start": 1,
    "step": 2,
    "total": 5,
    "retries": 1,
    "max_failures": "5%",
    "crash_limit": 4,
    "loss_limit": 11,
}


def test_equal_specifications_do_not_conflict() -> None:
    Spec(handler="m:f", retries=2).conflict(Spec(handler="m:f", retries=2), "r")


@pytest.mark.parametrize("field", Spec.__struct_fields__)
def test_the_field_that_differs_is_named(field: str) -> None:
    mine = Spec(handler="m:f")
    theirs = Spec(**{"handler": "m:f", field: OTHER[field]})  # type: ignore[arg-type]
    with pytest.raises(SpecConflict) as caught:
        mine.conflict(theirs, "r")
    message = str(caught.value)
    assert f"its {field} is {OTHER[field]!r}, yours is {getattr(mine, field)!r}" in message
    assert "piecework delete r" in message


def test_handler_text() -> None:
    assert handler_text("m:f", None, False) == "m:f"
    assert handler_text(None, "convert {}", False) == "exec:convert {}"
    assert handler_text(None, "a | b", True) == "shell:a | b"


failures = st.builds(Failure, st.text(max_size=30), st.text(max_size=50), st.text(max_size=50), st.integers(1, 99))


@given(st.lists(failures, max_size=5))
def test_failures_round_trip(some: list[Failure]) -> None:
    assert [to_failure(fields, "x") for fields in unpack(pack_failures(some), "x")] == some


def test_lone_surrogates_and_long_texts_do_not_make_a_failure_unstorable() -> None:
    failure = Failure("E", "bad \ud800 name", "a" * 6000 + "b" * 6000)
    stored = to_failure(unpack(pack_failures([failure]), "x")[0], "x")
    assert stored.message == "bad \\ud800 name"
    assert len(stored.traceback) < 10_010
    assert stored.traceback.startswith("aaa")
    assert stored.traceback.endswith("bbb")
    assert " … " in stored.traceback


@pytest.mark.parametrize("fields", [None, [], ["a", "b", "c"], ["a", "b", "c", "d"], [1, "b", "c", 1], {"type": "a"}])
def test_what_is_no_failure(fields: object) -> None:
    with pytest.raises(CorruptData, match="run r, failures 1-1: not a failure"):
        to_failure(fields, "run r, failures 1-1")
