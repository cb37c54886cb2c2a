"""Pi with gmpy2 in one process, as a decimal string: `DIGITS FILE [mpfr]`; prints the seconds without the imports.

The Chudnovsky series by binary splitting, on integers, as anybody would write it; with `mpfr`, gmpy2's own `const_pi`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import gmpy2

_C = 640320**3 // 24


def split(start: int, stop: int) -> tuple[Any, Any, Any]:
    """P, Q, T of the terms `start` to `stop - 1`."""
    if stop - start == 1:
        p = gmpy2.mpz((6 * start - 5) * (2 * start - 1) * (6 * start - 1)) if start else gmpy2.mpz(1)
        q = gmpy2.mpz(start) ** 3 * _C if start else gmpy2.mpz(1)
        t = p * (13591409 + 545140134 * start)
        return p, q, -t if start % 2 else t
    middle = (start + stop) // 2
    p1, q1, t1 = split(start, middle)
    p2, q2, t2 = split(middle, stop)
    return p1 * p2, q1 * q2, t1 * q2 + p1 * t2


def by_series(digits: int) -> str:
    """`digits` digits and ten more, which are cut off."""
    decimals = digits + 9
    _, q, t = split(0, digits // 14 + 2)
    root = gmpy2.isqrt(10005 * gmpy2.mpz(10) ** (2 * decimals))
    text = (q * 426880 * root // t).digits()
    return f"{text[0]}.{text[1:digits]}"


def by_mpfr(digits: int) -> str:
    """The same from `const_pi`."""
    text: str = gmpy2.const_pi(precision=int((digits + 10) * 3.3219281) + 10).digits(10, digits + 10)[0]
    return f"{text[0]}.{text[1:digits]}"


def main() -> None:
    """Compute, write, print."""
    digits, target = int(sys.argv[1]), Path(sys.argv[2])
    started = time.monotonic()
    text = (by_mpfr if "mpfr" in sys.argv[3:] else by_series)(digits)
    seconds = time.monotonic() - started
    target.write_text(text + "\n")
    print(seconds)


if __name__ == "__main__":
    main()
