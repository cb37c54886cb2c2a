"""The distribution of item times: a bar for each bucket of the histogram, lines at the percentiles."""

from piecework_producer import quantities as q
from piecework_producer.item_times import ItemTimes, edge
from piecework_producer.markup import Element, coordinate, element
from piecework_producer.plot_frame import Axis, Frame

PERCENTILES = (50.0, 90.0, 99.0)
LEGEND = (
    ("bar busy", "items whose time lies in the bucket"),
    ("percentile", "percentiles, estimated within their bucket"),
)
_LEAST_HEIGHT = 1.5
"""A bucket with one item of a million is seen."""


def item_times_plot(times: ItemTimes) -> Element:
    """Time across (logarithmic), percent of the items up. There has to be an item."""
    used = times.used
    low, high = edge(max(0, used[0] - 1)), edge(used[-1] + 2)
    top = 112 * max(times.counts) / times.total
    frame = Frame(
        "Distribution of item times",
        "; ".join(f"p{percent:g} about {q.seconds(times.percentile(percent))}" for percent in PERCENTILES),
        Axis(
            "item time (logarithmic)", low, high, [(value, q.seconds(value)) for value in q.log_ticks(low, high)], True
        ),
        Axis("share of the items (%)", 0.0, top, [(value, q.tick(value)) for value in q.ticks(0, top)]),
        height=300.0,
    )
    for bucket in used:
        count = times.counts[bucket]
        if not count:
            continue
        words = f"{q.seconds(edge(bucket))} to {q.seconds(edge(bucket + 1))}: {count:,} items"
        left, right = frame.x(edge(bucket)) + 1, frame.x(edge(bucket + 1)) - 1
        height = max(_LEAST_HEIGHT, frame.bottom - frame.y(100 * count / times.total))
        box = {"x": left, "y": frame.bottom - height, "width": right - left, "height": height}
        frame.add(element("rect", element("title", words), class_="bar busy", **box))
    for number, percent in enumerate(PERCENTILES):
        x = frame.x(times.percentile(percent) or low)
        frame.add(element("path", d=f"M{coordinate(x)} {frame.top}V{coordinate(frame.bottom)}", class_="percentile"))
        anchor, shift = ("end", -4) if x > frame.right - 90 else ("start", 4)
        frame.text(x + shift, frame.top + 12 + 15 * number, f"p{percent:g}", "note", anchor)
    return frame.svg
