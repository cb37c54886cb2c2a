"""Pi: every digit right, whatever the split, and a refusal where that cannot be had."""

import importlib
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gmpy2
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


def items_at(bounds: set[int]) -> list[pi.Item]:
    """Items for 144 terms, split at the bounds: good for 2007 digits."""
    items: list[pi.Item] = [["root", 144]]
    items.extend(["terms", start, stop, 144] for start, stop in pairwise(sorted({0, 144, *bounds})))
    return items


@given(bounds=st.sets(st.integers(1, 143)), digits=st.sampled_from([None, 1, 17, 1000, 1999]))
def test_any_split_gives_the_same_digits(bounds: set[int], digits: int | None) -> None:
    text = pi.combine(map(pi.terms, items_at(bounds)), digits)
    assert text == pi.combine(map(pi.terms, items_at(set())), digits)
    assert text == rounded(flint_pi(2_020), digits or len(text) - 1)


@given(middle=st.integers(1, 1411), leaf_terms=st.integers(1, 20))
def test_what_is_cut_off_cannot_be_seen(middle: int, leaf_terms: int) -> None:
    """The sum is off by less than 2^-64 of the first term that is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pi, "LEAF_TERMS", leaf_terms)
        left, right = (pi._split(*bounds, 1412, gmpy2) for bounds in pairwise((0, middle, 1412)))
        _, q, t, _ = pi._join(left, right)
        patch.setattr(pi, "_bits", lambda start, count: 10**6)
        _, exact_q, exact_t, _ = pi._split(0, 1412, 1412, gmpy2)
    assert exact_q.bit_length() > 1.5 * q.bit_length()
    assert abs(t * exact_q - exact_t * q) << pi._bits(1, 1412) < exact_t * q


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
    bounds = [0, *(item[2] for item in items[1:])]
    assert bounds == sorted(set(bounds))
    assert items == [["root", bounds[-1]], *(["terms", *pair, bounds[-1]] for pair in pairwise(bounds))]
    assert len(items) == parts + 1 if digits > 20_000 else len(items) <= parts + 1


def test_ranges_balance_cost() -> None:
    """The bits of the results before any cut, which is what the multiplications cost, are even; the counts are not."""
    items = pi.ranges(100_000, 4)[1:]
    results = [pi.terms([*item[:3], 10**6]) for item in items]
    sizes = [sum(int(value).bit_length() for value in result[4:]) for result in results]
    counts = [int(stop) - int(start) for _, start, stop, _ in items]
    assert max(sizes) < 1.02 * min(sizes)
    assert counts == sorted(counts, reverse=True)


def test_default_parts() -> None:
    assert pi.default_parts(1, 8) == 1
    assert pi.default_parts(19_999, 8) == 1
    assert pi.default_parts(1_000_000, 2) == 2
    assert pi.default_parts(10_000_000, 64) == 8


def test_results_are_plain_integers_that_survive_json() -> None:
    """By hand: terms 1 and 2 have p = 1*1*5 and 7*3*11, q = k^3 640320^3 / 24; the root has 2*14.18 decimals."""
    c3, a1, a2 = 640320**3 // 24, 13591409 + 545140134, 13591409 + 2 * 545140134
    stretch: pi.Item = ["terms", 1, 3, 9, 5 * 231, c3**2 * 8, -5 * a1 * c3 * 8 + 5 * 231 * a2]
    last: pi.Item = ["terms", 1, 3, 3, 0, *stretch[-2:]]
    root: pi.Item = ["root", 3, math.isqrt(10005 * 10**56)]
    for expected, length in ((stretch, 4), (last, 4), (root, 2)):
        result = pi.terms(expected[:length])
        assert result == expected
        assert [type(value) for value in result] == [str] + [int] * (len(result) - 1)
        assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    "item",
    [
        [],
        [0],
        [0, 3],
        ["root"],
        ["root", 0],
        ["root", 3.0],
        ["terms", 0, 3],
        ["terms", 0, 0, 3],
        ["terms", 2, 1, 3],
        ["terms", 0, 4, 3],
        ["terms", -1, 3, 3],
        ["terms", 0.0, 3.0, 3],
        ["stretch", 0, 3, 3],
        "terms",
        None,
    ],
)
def test_a_bad_item_is_named(item: list[str | int]) -> None:
    with pytest.raises(ValueError, match=r'item .* is not \["root", count\] or') as raised:
        pi.terms(item)
    assert repr(item) in str(raised.value)


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_1_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"digits is {number}: give 1 or more"):
        pi.ranges(number, 1)
    with pytest.raises(ValueError, match=f"parts is {number}"):
        pi.ranges(10, number)
    with pytest.raises(ValueError, match=f"digits is {number}"):
        pi.combine(map(pi.terms, pi.ranges(10, 1)), number)
    with pytest.raises(ValueError, match=f"parallelism is {number}"):
        pi.default_parts(10, number)


def test_too_few_terms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2000 digits asked.*good for \d+: .*ranges\(2000, parts\)"):
        pi.combine(map(pi.terms, pi.ranges(1900, 2)), 2000)
    with pytest.raises(ValueError, match=r"1 digits asked.*good for 0"):
        pi.combine([pi.terms(["root", 1]), pi.terms(["terms", 0, 1, 1])])


def test_a_missing_doubled_or_swapped_item_is_refused() -> None:
    root, first, second, third = map(pi.terms, pi.ranges(1000, 3))
    for wrong, problem in (
        ([], "result 0 is not the root"),
        ([first, second, third], "result 0 is not the root"),
        ([root, root, first, second, third], "result 1 is not a stretch"),
        ([root, second, third], f"result 1 begins at term {second[1]} of 73, not at 0 of 73"),
        ([root, first, third], f"result 2 begins at term {third[1]} of"),
        ([root, first, first, second, third], "result 2 begins at term 0"),
        ([root, first, third, second], f"result 2 begins at term {third[1]}"),
        ([root, first, second], f"the results end at term {third[1]} of 73"),
        ([root], "the results end at term 0 of 73"),
        ([root, *map(pi.terms, pi.ranges(1100, 3)[1:])], "result 1 begins at term 0 of 80, not at 0 of 73"),
    ):
        with pytest.raises(
            ValueError, match=f"^{problem}.*: combine takes the results of all items of ranges, in order"
        ):
            pi.combine(wrong, 10)


@pytest.mark.parametrize("unfit", [["terms", 1, 2, 3], ["1", "2", "3", "4", "5"], None, 7])
def test_a_result_of_another_handler_is_named(unfit: list[str | int]) -> None:
    with pytest.raises(ValueError, match="result 1 is not a stretch"):
        pi.combine([pi.terms(["root", 80]), unfit], 10)


def test_an_open_rounding_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.141|59265… of 28 decimals: an error of 9.2e23 in the last one may make it 3.141|50000."""
    monkeypatch.setattr(pi, "_UNITS_OF_ERROR", 9 * 10**23)
    assert pi_in_parts(4, 1) == "3.142"
    monkeypatch.setattr(pi, "_UNITS_OF_ERROR", 10**24)
    with pytest.raises(ArithmeticError, match="rounding of the last digit is open"):
        pi_in_parts(4, 1)


def test_missing_gmpy2_is_told_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gmpy2", None)
    importlib.reload(pi)
    for call in (lambda: pi.terms(["root", 3]), lambda: pi.terms(["terms", 0, 3, 3]), lambda: pi.combine([])):
        with pytest.raises(ImportError, match=r"pip install 'piecework\[pi\]'"):
            call()


def test_another_process_writes_half_of_many_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pi, "TWO_PROCESSES_DIGITS", 4)
    for digits in (4, 5, 762, 1999):
        assert pi_in_parts(digits, 1) == rounded(PI_2000, digits)


def test_a_process_that_cannot_write_its_half_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pi, "TWO_PROCESSES_DIGITS", 4)
    monkeypatch.setattr(pi, "_WRITE_HALF", "import sys; sys.stdin.read(); sys.exit('no')")
    with pytest.raises(subprocess.CalledProcessError, match="status 1"):
        pi_in_parts(5, 1)
