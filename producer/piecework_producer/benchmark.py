"""What a benchmark has found: for each degree of parallelism its repetitions, and the law that fits them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piecework_producer.run_profile import RunProfile
from piecework_producer.scalability import Scalability, TooFewDegrees, fit


@dataclass(frozen=True)
class Repetition:
    """One run that was measured."""

    parallelism: int
    number: int
    """Which sweep over the degrees it belongs to, from 1."""
    profile: RunProfile
    start_seconds: float
    """From launching the workers until all of them had joined; not part of what is measured."""

    @property
    def rate(self) -> float:
        """Items per second from the seal, with all workers waiting for it, to the end."""
        return self.profile.items_per_second or 0.0


@dataclass(frozen=True)
class Degree:
    """The repetitions at one degree of parallelism."""

    parallelism: int
    repetitions: Sequence[Repetition]

    @property
    def rates(self) -> list[float]:
        """Items per second of each repetition."""
        return [each.rate for each in self.repetitions]

    @property
    def rate(self) -> float:
        """Their median."""
        return statistics.median(self.rates)

    @property
    def slowest(self) -> float:
        """The least of them."""
        return min(self.rates)

    @property
    def fastest(self) -> float:
        """The greatest of them."""
        return max(self.rates)

    @property
    def tail_share(self) -> float | None:
        """Median; see `run_profile`."""
        return _median([each.profile.tail_share for each in self.repetitions])

    @property
    def idle_tail_share(self) -> float | None:
        """Median; see `run_profile`."""
        return _median([each.profile.idle_tail_share for each in self.repetitions])

    @property
    def queue_share(self) -> float | None:
        """Median; see `run_profile`."""
        return _median([each.profile.queue_share for each in self.repetitions])

    @property
    def start_seconds(self) -> float:
        """Median."""
        return statistics.median(each.start_seconds for each in self.repetitions)

    @property
    def typical(self) -> Repetition:
        """The repetition in the middle, the slower of two: its workers are shown."""
        return sorted(self.repetitions, key=lambda each: each.rate)[(len(self.repetitions) - 1) // 2]


@dataclass(frozen=True)
class Benchmark:
    """All of it. `degrees` ascend."""

    workload: str
    pile: str
    """What one run consists of, in words."""
    degrees: Sequence[Degree]
    facts: Mapping[str, str]
    """Where, when and with what it was measured."""

    @property
    def ideal_per_worker(self) -> float:
        """Items per second of each worker at the smallest degree: what speed-up is measured against."""
        return self.degrees[0].rate / self.degrees[0].parallelism

    def speedup(self, degree: Degree) -> float:
        """How many workers' worth of the smallest degree it does."""
        return degree.rate / self.ideal_per_worker if self.ideal_per_worker else 0.0

    def efficiency(self, degree: Degree) -> float:
        """Speed-up for each worker; 1 is ideal."""
        return self.speedup(degree) / degree.parallelism

    @property
    def law(self) -> Scalability | None:
        """The law that fits all repetitions; None if it cannot be found (see `why_no_law`)."""
        return _law(self._points)

    @property
    def why_no_law(self) -> str:
        """Why there is none."""
        try:
            fit(self._points)
        except TooFewDegrees as error:
            return f"{error}; more of them: --parallelism 1,2,4"
        except ValueError as error:
            return f"no law can be fitted: {error}"
        return ""

    @property
    def laws_by_repetition(self) -> list[Scalability]:
        """The law of each sweep over the degrees alone: how far its coefficients depend on chance."""
        sweeps = sorted({each.number for degree in self.degrees for each in degree.repetitions})
        laws = (_law([point for point, number in self._numbered if number == sweep]) for sweep in sweeps)
        return [law for law in laws if law is not None]

    def to_json(self) -> dict[str, Any]:
        """For a machine: docs/measuring.md has the fields."""
        law = self.law
        return {
            "workload": self.workload,
            "pile": self.pile,
            "facts": dict(self.facts),
            "degrees": [self._degree_to_json(degree) for degree in self.degrees],
            "law": None
            if law is None
            else {
                "lambda": law.rate,
                "sigma": law.sigma,
                "kappa": law.kappa,
                "peak": law.peak,
                "ceiling": law.ceiling,
                "r_squared": law.r_squared,
                "degrees": law.degrees,
                "by_repetition": [
                    {"lambda": each.rate, "sigma": each.sigma, "kappa": each.kappa} for each in self.laws_by_repetition
                ],
            },
            "why_no_law": self.why_no_law,
        }

    def _degree_to_json(self, degree: Degree) -> dict[str, Any]:
        return {
            "parallelism": degree.parallelism,
            "items_per_second": degree.rate,
            "slowest": degree.slowest,
            "fastest": degree.fastest,
            "speedup": self.speedup(degree),
            "efficiency": self.efficiency(degree),
            "tail_share": degree.tail_share,
            "idle_tail_share": degree.idle_tail_share,
            "queue_share": degree.queue_share,
            "start_seconds": degree.start_seconds,
            "repetitions": [
                {"repetition": each.number, "start_seconds": each.start_seconds, **each.profile.to_json()}
                for each in degree.repetitions
            ],
        }

    @property
    def _points(self) -> list[tuple[int, float]]:
        return [point for point, _ in self._numbered]

    @property
    def _numbered(self) -> list[tuple[tuple[int, float], int]]:
        return [((each.parallelism, each.rate), each.number) for degree in self.degrees for each in degree.repetitions]


def _law(points: Sequence[tuple[int, float]]) -> Scalability | None:
    try:
        return fit(points)
    except ValueError:
        return None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
