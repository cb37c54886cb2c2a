"""How figures are written for people: rates, seconds, shares, and the round numbers of an axis."""

import math


def rate(value: float | None, unit: str = "") -> str:
    """Three figures: 0.0312, 4.21, 4,210,000; with the unit, if there is a figure."""
    return "-" if value is None else f"{_three(value)}{unit}"


def seconds(value: float | None) -> str:
    """Three figures in the unit that fits: 3.1 µs, 12 ms, 4.5 s, 7 min, 3.2 h."""
    if value is None:
        return "-"
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= (size if size <= 1 else 2 * size):
            return f"{_three(value / size)} {unit}"
    return f"{_three(value / 1e-6)} µs" if value > 0 else "0 s"


def share(value: float | None) -> str:
    """A fraction as a percentage with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}%"


def coefficient(value: float) -> str:
    """σ or κ: 0 if it is exactly that."""
    return "0" if value == 0 else f"{value:.2g}" if value < 0.001 else f"{value:.4f}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from `low` to `high`, about so many."""
    if high <= low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 1.4 * about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * count, 12) for count in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, with their doubles and halves where there is room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    found = (float(f"{factor}e{power}") for power in powers for factor in factors)
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def tick(value: float) -> str:
    """An axis label: 0, 0.5, 20, 1,500, 250k, 4M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size and (size > 1e3 or abs(value) >= 1e4):
            return f"{value / size:g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _three(value: float) -> str:
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
