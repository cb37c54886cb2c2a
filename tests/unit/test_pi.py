"""Pi: every digit right, whatever the split, and a refusal where that cannot be had."""

import importlib
import json
import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from flint import arb, ctx
from gmpy2 import mpz
from hypothesis import given
from hypothesis import strategies as st

from piecework_worker import pi

PI_2000 = (Path(__file__).parents[1] / "data" / "pi-2000.txt").read_text().rstrip("\n")


def pi_in_parts(digits: int, parts: int) -> str:
    return pi.combine(map(pi.terms, pi.ranges(digits, parts)), digits)


def rounded(text: str, digits: int) -> str:
    """The first `digits` of a longer decimal string "3.…", the last one rounded half up."""
    figures = text.replace(".", "")
    kept = str(mpz(figures[:digits]) + (figures[digits] >= "5"))
    return f"3.{kept[1:]}" if digits > 1 else kept


def flint_pi(digits: int) -> str:
    """Some more than `digits` of pi, cut."""
    precision = ctx.prec
    ctx.prec = math.ceil((digits + 50) * math.log2(10))
    try:
        return arb.pi().str(digits + 30, radius=False)
    finally:
        ctx.prec = precision


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5, 10, 50, 761, 762, 763, 768, 1999])
def test_prefixes_are_rounded(digits: int) -> None:
    assert pi_in_parts(digits, 1) == rounded(PI_2000, digits)


def test_2000_digits_are_the_reference() -> None:
    assert pi_in_parts(2000, 3) == PI_2000


def test_short_forms() -> None:
    assert [pi_in_parts(digits, 1) for digits in (1, 2, 3, 4)] == ["3", "3.1", "3.14", "3.142"]


@pytest.mark.parametrize(("digits", "end"), [(762, "135"), (767, "13500000"), (769, "1349999998")])
def test_rounding_carries_through_a_run_of_nines(digits: int, end: str) -> None:
    """Decimals 759 to 769 are 134 999999 83."""
    assert pi_in_parts(digits, 1).endswith(end)


@given(bounds=st.sets(st.integers(1, 143)), digits=st.sampled_from([None, 1, 17, 1000, 1999]))
def test_any_split_gives_the_same_digits(bounds: set[int], digits: int | None) -> None:
    items = pairwise(sorted({0, 144, *bounds}))
    text = pi.combine(map(pi.terms, items), digits)
    assert text == pi.combine([pi.terms([0, 144])], digits)
    assert text == rounded(flint_pi(2_020), digits or len(text) - 1)


def test_100_000_digits_agree_with_another_library() -> None:
    assert pi_in_parts(100_000, 4) == rounded(flint_pi(100_000), 100_000)


@given(digits=st.integers(1, 1_980), parts=st.integers(1, 40))
def test_without_a_number_every_digit_is_right(digits: int, parts: int) -> None:
    text = pi.combine(map(pi.terms, pi.ranges(digits, parts)))
    printed = len(text) - 1
    assert digits <= printed <= digits + 14
    assert text == rounded(PI_2000, printed)


@given(digits=st.integers(1, 10**9), parts=st.integers(1, 64))
def test_ranges_adjoin_from_term_0_and_are_not_empty(digits: int, parts: int) -> None:
    items = pi.ranges(digits, parts)
    bounds = [items[0][0], *(stop for _, stop in items)]
    assert bounds[0] == 0
    assert bounds == sorted(set(bounds))
    assert [[start, stop] for start, stop in pairwise(bounds)] == items
    assert len(items) == parts if digits > 20_000 else len(items) <= parts


def test_ranges_balance_cost() -> None:
    """The bits of the results, which is what the multiplications cost, are even; the counts are not."""
    items = pi.ranges(100_000, 4)
    sizes = [sum(value.bit_length() for value in pi.terms(item)) for item in items]
    counts = [stop - start for start, stop in items]
    assert max(sizes) < 1.02 * min(sizes)
    assert counts == sorted(counts, reverse=True)


def test_default_parts() -> None:
    assert pi.default_parts(1, 8) == 1
    assert pi.default_parts(19_999, 8) == 1
    assert pi.default_parts(1_000_000, 2) == 2
    assert pi.default_parts(10_000_000, 64) == 8


def test_results_are_plain_integers_that_survive_json() -> None:
    """By hand: terms 1 and 2 have p = 1*1*5 and 7*3*11, q = k^3 640320^3 / 24."""
    c3, a1, a2 = 640320**3 // 24, 13591409 + 545140134, 13591409 + 2 * 545140134
    result = pi.terms([1, 3])
    assert [type(value) for value in result] == [int] * 5
    assert result == [5 * 231, c3**2 * 8, -5 * a1 * c3 * 8 + 5 * 231 * a2, 1, 3]
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    "item", [[], [0], [0, 0], [2, 1], [-1, 3], [0, 1, 2], [0.0, 3.0], ["0", "3"], "03", None, {"start": 0}]
)
def test_a_bad_item_is_named(item: list[int]) -> None:
    with pytest.raises(ValueError, match=r"item .* is not \[start, stop\]") as raised:
        pi.terms(item)
    assert repr(item) in str(raised.value)


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_1_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"digits is {number}: give 1 or more"):
        pi.ranges(number, 1)
    with pytest.raises(ValueError, match=f"parts is {number}"):
        pi.ranges(10, number)
    with pytest.raises(ValueError, match=f"digits is {number}"):
        pi.combine([pi.terms([0, 3])], number)
    with pytest.raises(ValueError, match=f"parallelism is {number}"):
        pi.default_parts(10, number)


def test_too_few_terms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2000 digits asked.*good for \d+: .*ranges\(2000, parts\)"):
        pi.combine(map(pi.terms, pi.ranges(1900, 2)), 2000)
    for none_certain in ([], [pi.terms([0, 1])]):
        with pytest.raises(ValueError, match=r"1 digits asked.*good for 0"):
            pi.combine(none_certain)


def test_a_missing_doubled_or_swapped_range_is_refused() -> None:
    first, second, third = map(pi.terms, pi.ranges(1000, 3))
    for wrong, index in (
        ([second, third], 0),
        ([first, third], 1),
        ([first, first, second, third], 1),
        ([first, third, second], 1),
    ):
        with pytest.raises(ValueError, match=f"result {index} begins at term {wrong[index][3]}, not at"):
            pi.combine(wrong, 10)


@pytest.mark.parametrize("unfit", [[1, 2, 3], ["1", "2", "3", "4", "5"], None, 7])
def test_a_result_of_another_handler_is_named(unfit: list[int]) -> None:
    with pytest.raises(ValueError, match="result 1 is not the"):
        pi.combine([pi.terms([0, 80]), unfit], 10)


def test_an_open_rounding_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one guard digit, 3.141|5… is open, 3.1415|9… is not."""
    monkeypatch.setattr(pi, "GUARD_DIGITS", 1)
    with pytest.raises(ArithmeticError, match="rounding of digit 4 is open"):
        pi_in_parts(4, 1)
    assert pi_in_parts(5, 1) == "3.1416"


def test_missing_gmpy2_is_told_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gmpy2", None)
    importlib.reload(pi)
    for call in (lambda: pi.terms([0, 3]), lambda: pi.combine([])):
        with pytest.raises(ImportError, match=r"pip install 'piecework\[pi\]'"):
            call()
