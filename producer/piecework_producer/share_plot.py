"""Where the worker time of each degree went: a bar of three parts, which add up to all of it."""

from piecework_producer import quantities as q
from piecework_producer.benchmark import Benchmark
from piecework_producer.markup import Element, element
from piecework_producer.plot_frame import Axis, Frame

LEGEND = (
    ("busy", "busy with items"),
    ("between", "between items: waiting, claims, forks, last commits"),
    ("idle", "idle after the worker's own last item"),
)
_ROW = 30.0


def share_plot(bench: Benchmark) -> Element:
    """One row for each N, shares of the worker time across: medians of the repetitions."""
    rows = [degree for degree in bench.degrees if degree.queue_share is not None]
    frame = Frame(
        "Where the worker time went",
        "; ".join(f"{row.parallelism} workers: {q.share(1 - (row.queue_share or 0))} busy" for row in rows),
        Axis("share of the worker time (%)", 0.0, 1.0, [(part / 5, f"{part * 20}") for part in range(6)]),
        None,
        height=60 + _ROW * len(rows),
        left=34 + 7 * len(f"N = {bench.degrees[-1].parallelism}"),
    )
    for number, row in enumerate(rows):
        y = frame.top + 4 + number * _ROW
        idle = min(row.queue_share or 0.0, row.idle_tail_share or 0.0)
        busy = 1 - (row.queue_share or 0.0)
        frame.text(frame.left - 8, y + 16, f"N = {row.parallelism}", "tick", "end")
        begin = 0.0
        for (class_, words), part in zip(LEGEND, (busy, 1 - busy - idle, idle), strict=True):
            if part > 0:
                tip = element("title", f"N = {row.parallelism}, {words}: {q.share(part)}")
                width = (frame.right - frame.left) * part
                frame.add(
                    element("rect", tip, x=frame.x(begin), y=y, width=width, height=_ROW - 8, class_=f"bar {class_}")
                )
            begin += part
    return frame.svg
