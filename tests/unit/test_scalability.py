"""The fit of the Universal Scalability Law, against laws whose coefficients are known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piecework_producer.scalability import Scalability, TooFewDegrees, fit

DEGREES = (1, 2, 4, 8, 16, 64)


@given(
    rate=st.floats(0.01, 1e8),
    sigma=st.sampled_from([0.0, 0.003, 0.1, 0.9, 1.5]),
    kappa=st.sampled_from([0.0, 1e-5, 0.002, 0.4]),
)
def test_known_coefficients_are_found(rate: float, sigma: float, kappa: float) -> None:
    law = Scalability(rate, sigma, kappa, 1.0, len(DEGREES))
    found = fit([(n, law.throughput(n)) for n in DEGREES])
    assert found.rate == pytest.approx(rate, rel=1e-3)
    assert found.sigma == pytest.approx(sigma, abs=1e-4)
    assert found.kappa == pytest.approx(kappa, abs=2e-6)
    assert found.r_squared == pytest.approx(1, abs=1e-6)
    assert found.degrees == len(DEGREES)


def test_noise_moves_them_little() -> None:
    chance, law = random.Random(3), Scalability(1000, 0.05, 0.001, 1.0, 6)
    points = [(n, law.throughput(n) * chance.uniform(0.97, 1.03)) for n in DEGREES for _ in range(5)]
    found = fit(points)
    assert found.sigma == pytest.approx(0.05, abs=0.01)
    assert found.kappa == pytest.approx(0.001, rel=0.2)
    assert found.peak == pytest.approx(30.8, rel=0.1)
    assert 0.98 < found.r_squared < 1


def test_throughput_that_only_grows_has_no_peak() -> None:
    linear = fit([(n, 100.0 * n) for n in DEGREES])
    assert (linear.sigma, linear.kappa, linear.peak, linear.ceiling) == (0, 0, None, None)
    faster_than_linear = fit([(1, 100.0), (2, 210.0), (4, 450.0)])
    assert (faster_than_linear.sigma, faster_than_linear.kappa) == (0, 0)
    amdahl = fit([(n, 100 * n / (1 + 0.2 * (n - 1))) for n in DEGREES])
    assert (amdahl.kappa, amdahl.peak) == (0, None)
    assert amdahl.ceiling == pytest.approx(500)


def test_throughput_that_only_falls_has_its_peak_at_one_worker() -> None:
    assert fit([(1, 100.0), (2, 50.0), (4, 20.0), (8, 8.0)]).peak == pytest.approx(1, abs=0.2)


def test_too_few_degrees_are_refused() -> None:
    with pytest.raises(TooFewDegrees, match="at least 3 degrees of parallelism, 2 were measured"):
        fit([(1, 100.0), (1, 101.0), (2, 190.0), (2, 195.0)])
    with pytest.raises(TooFewDegrees, match="1 was measured"):
        fit([(4, 100.0)])
    with pytest.raises(TooFewDegrees, match="0 were measured"):
        fit([])
    for impossible in ((0, 1.0), (1, 0.0), (1, -1.0)):
        with pytest.raises(ValueError, match="at least one worker"):
            fit([impossible, (2, 2.0), (3, 3.0)])
