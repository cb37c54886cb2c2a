"""The Universal Scalability Law, fitted to measured throughput.

    X(N) = λ N / (1 + σ (N - 1) + κ N (N - 1))

N. J. Gunther, "Guerrilla Capacity Planning", Springer 2007. λ is the throughput of one worker, σ (contention) the part
of the work that only one can do at a time, κ (coherency) the cost of each pair's keeping in step. With κ = 0 it is
Amdahl's law; with κ > 0 throughput has a peak, at N = √((1 - σ) / κ).

The law is linear in a = 1/λ, b = σ/λ, c = κ/λ: N/X = a + b (N - 1) + c N (N - 1). So the fit is a least-squares problem
in three unknowns with b, c ≥ 0, solved exactly by trying which of b and c are zero. Each equation is divided by its
N/X: what is made small is the relative error of X, and slow degrees count no more than fast ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_DEGREES = 3
"""Distinct N that a law with three coefficients needs."""
_NOTHING = 1e-12
"""Sum of squared relative errors that is rounding and no reason for another coefficient."""


class TooFewDegrees(ValueError):
    """Three coefficients cannot be found from fewer than three degrees of parallelism."""


@dataclass(frozen=True)
class Scalability:
    """A fitted law."""

    rate: float
    """λ, items per second."""
    sigma: float
    kappa: float
    r_squared: float
    """1 - (sum of squared errors of X) / (sum of its squared deviations from the mean)."""
    degrees: int
    """Distinct N that it was fitted to; with `LEAST_DEGREES` nothing is left to tell a good fit from a bad one."""

    def throughput(self, workers: float) -> float:
        """Items per second that the law expects."""
        loss = self.sigma * (workers - 1) + self.kappa * workers * (workers - 1)
        return self.rate * workers / (1 + loss)

    @property
    def peak(self) -> float | None:
        """The N of the highest throughput; None: it has none, more workers always do more."""
        if self.kappa <= 0:
            return None
        return max(1.0, math.sqrt(max(0.0, 1 - self.sigma) / self.kappa))

    @property
    def ceiling(self) -> float | None:
        """What throughput comes near to and does not reach, if it is only held up by contention."""
        return self.rate / self.sigma if self.kappa <= 0 and self.sigma > 0 else None


def fit(points: Sequence[tuple[int, float]]) -> Scalability:
    """The law that fits (workers, items per second) best; several points may have the same N.

    Raises `TooFewDegrees`; ValueError for a point without workers or without throughput.
    """
    if any(workers < 1 or rate <= 0 for workers, rate in points):
        raise ValueError("a point of the law has at least one worker and a throughput above 0")
    degrees = len({workers for workers, _ in points})
    if degrees < LEAST_DEGREES:
        raise TooFewDegrees(
            f"the Universal Scalability Law needs at least {LEAST_DEGREES} degrees of parallelism, "
            f"{degrees} {'was' if degrees == 1 else 'were'} measured"
        )
    rows = [tuple(term * x / n for term in (1.0, n - 1.0, n * (n - 1.0))) for n, x in points]
    best, least = (1.0, 0.0, 0.0), math.inf
    for used in ((0,), (0, 1), (0, 2), (0, 1, 2)):  # simplest first
        found = _least_squares(rows, used)
        error = sum((sum(map(float.__mul__, row, found)) - 1) ** 2 for row in rows)
        if min(found) >= 0 and found[0] > 0 and error < least - _NOTHING:
            best, least = found, error
    a, b, c = best
    law = Scalability(1 / a, b / a, c / a, 0.0, degrees)
    mean = sum(x for _, x in points) / len(points)
    spread = sum((x - mean) ** 2 for _, x in points)
    missed = sum((x - law.throughput(n)) ** 2 for n, x in points)
    return Scalability(law.rate, law.sigma, law.kappa, 1 - missed / spread if spread else 1.0, degrees)


def _least_squares(rows: Sequence[Sequence[float]], used: Sequence[int]) -> tuple[float, float, float]:
    """The x that makes rows · x closest to 1, with zeros where `used` does not say otherwise.

    Gram–Schmidt, which keeps its precision where the normal equations would square the columns' sizes.
    """
    target = [1.0] * len(rows)
    columns = [[row[column] for row in rows] for column in used]
    triangle: list[list[float]] = []
    projections: list[float] = []
    basis: list[list[float]] = []
    for column in columns:
        entries = []
        for each in basis:
            along = _dot(each, column)
            entries.append(along)
            column = [value - along * unit for value, unit in zip(column, each, strict=True)]
        length = math.sqrt(_dot(column, column))
        basis.append([value / length for value in column])
        triangle.append([*entries, length])
        along = _dot(basis[-1], target)
        projections.append(along)
        target = [value - along * unit for value, unit in zip(target, basis[-1], strict=True)]
    solution = [0.0, 0.0, 0.0]
    for place in reversed(range(len(used))):
        known = sum(triangle[later][place] * solution[used[later]] for later in range(place + 1, len(used)))
        solution[used[place]] = (projections[place] - known) / triangle[place][place]
    return solution[0], solution[1], solution[2]


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))
