"""The scaling curve: throughput at each degree of parallelism, with its spread, the ideal, and the fitted law."""

from collections.abc import Sequence
from itertools import pairwise

from piecework_producer import quantities as q
from piecework_producer.benchmark import Benchmark, Degree
from piecework_producer.markup import Element, coordinate, element
from piecework_producer.plot_frame import Axis, Frame

LEGEND = (
    ("median", "median of the repetitions"),
    ("dot", "one repetition"),
    ("spread", "from the slowest to the fastest repetition"),
    ("ideal", "ideal: the smallest degree, times N"),
)
LAW_LEGEND = ("law", "Universal Scalability Law, fitted")
_CURVE_POINTS = 120


def scaling_plot(bench: Benchmark) -> Element:
    """Workers across, items per second up, both from 0."""
    degrees = bench.degrees
    most, best = degrees[-1].parallelism, max(degree.fastest for degree in degrees)
    ideal = bench.ideal_per_worker
    top = 1.08 * max(best, min(ideal * most, 1.6 * best))
    marks = [degree.parallelism for degree in degrees]
    ticks = marks if _fit(marks, most) else [int(tick) for tick in q.ticks(0, most, 8) if tick == int(tick) and tick]
    frame = Frame(
        "Scaling curve",
        "; ".join(f"{degree.parallelism} workers: {q.rate(degree.rate)} items per second" for degree in degrees),
        Axis("workers (N)", 0.0, most * 1.06, [(float(tick), f"{tick:,}") for tick in ticks]),
        Axis("throughput (items/s)", 0.0, top, [(value, q.tick(value)) for value in q.ticks(0, top)]),
        height=400.0,
    )
    end = min(most * 1.06, top / ideal)
    frame.line([(0.0, 0.0), (end, ideal * end)], "ideal")
    law = bench.law
    if law is not None:
        first, last = degrees[0].parallelism, most * 1.06
        steps = [first + (last - first) * step / _CURVE_POINTS for step in range(_CURVE_POINTS + 1)]
        frame.line([(n, min(top, law.throughput(n))) for n in steps], "law")
    for degree in degrees:
        frame.add(*_degree(frame, degree))
    if law is not None and law.peak is not None and degrees[0].parallelism < law.peak <= most:
        x, y = frame.x(law.peak), frame.y(law.throughput(law.peak))
        frame.add(element("path", d=f"M{coordinate(x)} {coordinate(y)}V{coordinate(frame.bottom)}", class_="peak"))
        frame.text(x - 5, frame.bottom - 8, f"peak at N = {law.peak:.0f}", anchor="end")
    return frame.svg


def _degree(frame: Frame, degree: Degree) -> list[Element]:
    x = frame.x(degree.parallelism)
    low, high = frame.y(degree.slowest), frame.y(degree.fastest)
    bar = element(
        "path", class_="spread",
        d=f"M{coordinate(x)} {coordinate(low)}V{coordinate(high)}"
        f"M{coordinate(x - 5)} {coordinate(low)}h10M{coordinate(x - 5)} {coordinate(high)}h10",
    )  # fmt: skip
    dots = [element("circle", cx=x, cy=frame.y(rate), r=2.5, class_="dot") for rate in degree.rates]
    label = f"{degree.parallelism} workers: {q.rate(degree.rate)} items/s, median of {len(degree.rates)}"
    median = element("circle", element("title", label), cx=x, cy=frame.y(degree.rate), r=5.0, class_="median")
    return [bar, *dots, median]


def _fit(marks: Sequence[int], most: int) -> bool:
    """Whether labels at these N do not touch."""
    room = 12 + 7 * len(str(most))
    return all((b - a) * 650 / most > room for a, b in pairwise(marks))
