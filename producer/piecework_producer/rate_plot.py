"""Throughput over time: the items of each commit, shared out evenly over the time that it took."""

from piecework_producer import quantities as q
from piecework_producer.markup import Element, coordinate, element
from piecework_producer.plot_frame import Axis, Frame
from piecework_producer.run_profile import BINS, RunProfile

LEGEND = (("area", "items recorded per second"), ("mean", "mean over the run"))
_STEPS = 60


def rate_plot(profile: RunProfile) -> Element:
    """Seconds since the seal across, items per second up."""
    together = BINS // _STEPS
    seconds = profile.bin_seconds * together
    rates = [sum(profile.recorded[at : at + together]) / seconds for at in range(0, BINS, together)]
    top = 1.1 * max(*rates, profile.items_per_second or 0.0)
    span = profile.span_seconds
    frame = Frame(
        "Throughput over time",
        f"{q.rate(profile.items_per_second)} items per second on average, {q.rate(max(rates))} at most",
        Axis(
            "time since the pile was sealed (s)", 0.0, span, [(value, q.tick(value)) for value in q.ticks(0, span, 8)]
        ),
        Axis("throughput (items/s)", 0.0, top, [(value, q.tick(value)) for value in q.ticks(0, top, 4)]),
        height=240.0,
    )
    base = coordinate(frame.bottom)
    path = f"M{coordinate(frame.left)} {base}"
    for step, rate in enumerate(rates):
        path += f"V{coordinate(frame.y(rate))}H{coordinate(frame.x((step + 1) * seconds))}"
    frame.add(element("path", d=f"{path}V{base}z", class_="area"))
    mean = profile.items_per_second or 0.0
    frame.line([(0.0, mean), (span, mean)], "mean")
    return frame.svg
