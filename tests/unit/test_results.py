"""An outcome as a line of JSON. No server."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from piecework.records import Failure
from piecework.results import Outcome


def told(value: Any) -> Any:
    return json.loads(Outcome(3, "x", value).to_json())["result"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ([1, [True, {"a": "ä😀\n"}]], [1, [True, {"a": "ä😀\n"}]]),
        (b"\xff\x00", "/wA="),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00Z"),
        (datetime(2024, 2, 29, 12), "2024-02-29T12:00:00"),  # noqa: DTZ001 - naive is meant
        (float("nan"), None),
        (float("inf"), None),
        (0.1, 0.1),
        (2**64, 2**64),
        ({"deep": [-(2**63) - 1, {"x": 2**100}]}, {"deep": [-(2**63) - 1, {"x": 2**100}]}),
    ],
)
def test_results_of_all_types(value: Any, expected: Any) -> None:
    assert told(value) == expected


@pytest.mark.parametrize("power", [4_300, 4_301, 4_302, 10_000, 100_001])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_beyond_the_digits_that_python_prints(power: int, sign: int) -> None:
    value = sign * (10**power - 7 * 10 ** (power // 2) + 3)

    line = Outcome(0, 0, [value, {"x": value}]).to_json().decode()

    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert json.loads(line)["result"] == [value, {"x": value}]
    finally:
        sys.set_int_max_str_digits(limit)


def test_the_fields_stand_in_the_promised_order_and_a_failure_has_no_result() -> None:
    failure = Failure("ValueError", "odd", "Traceback …", 2)

    assert Outcome(1, 2, 4).to_json() == b'{"index":1,"item":2,"result":4}'
    assert (
        Outcome(1, {"a": 2**70}, error=failure).to_json()
        == b'{"index":1,"item":{"a":1180591620717411303424},"error":{"type":"ValueError","message":"odd"}}'
    )
    assert json.loads(Outcome(1, 2, error=failure).to_json(("type", "attempt")))["error"] == {
        "type": "ValueError",
        "attempt": 2,
    }
