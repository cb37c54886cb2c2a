"""Pi by FLINT's `arb.pi()` in one process, as a decimal string: `DIGITS FILE`; prints the seconds without imports."""

import sys
import time
from pathlib import Path

import flint


def main() -> None:
    """Compute, write, print."""
    digits, target = int(sys.argv[1]), Path(sys.argv[2])
    started = time.monotonic()
    flint.ctx.dps = digits + 5
    text = flint.arb.pi().str(digits, radius=False)
    seconds = time.monotonic() - started
    target.write_text(text + "\n")
    print(seconds)


if __name__ == "__main__":
    main()
