"""The plots of one run with their numbers, as the pages of `report` and `bench` both show them."""

from collections.abc import Iterator

from piecework_producer import item_times_plot, rate_plot, timeline_plot
from piecework_producer import page as p
from piecework_producer import quantities as q
from piecework_producer.item_times import ItemTimes, edge
from piecework_producer.markup import Element
from piecework_producer.run_profile import BINS, MOST_ROWS, RunProfile, WorkerProfile

_INTERVALS = 12


def throughput(profile: RunProfile) -> Element:
    """Throughput over time."""
    together = BINS // _INTERVALS
    seconds = profile.bin_seconds * together
    rows = [
        (q.seconds(at * seconds), q.seconds((at + 1) * seconds), f"{items:,.0f}", q.rate(items / seconds))
        for at, items in enumerate(
            sum(profile.recorded[at : at + together]) for at in range(0, _INTERVALS * together, together)
        )
    ]
    numbers = p.table("Items recorded", ("from", "to", "items", "items/s"), rows)
    return p.figure(rate_plot.rate_plot(profile), rate_plot.LEGEND, numbers)


def timeline(profile: RunProfile) -> Element:
    """When each worker was busy."""
    shown = [worker for worker in profile.workers if worker.bins is not None]
    caption = "Workers" if len(shown) == len(profile.workers) else f"{MOST_ROWS} of {len(profile.workers)} workers"
    header = ("worker", "items", "failed", "present", "busy", "busy share", "last item at")
    numbers = p.table(caption, header, [_row(worker) for worker in shown])
    marks = (timeline_plot.MARK_LEGEND,) if profile.marks else ()
    return p.figure(timeline_plot.timeline_plot(profile), (*timeline_plot.LEGEND, *marks), numbers)


def item_times(times: ItemTimes) -> Element:
    """How long items took."""
    numbers = p.table(f"Item times; {_percentiles(times)}", ("from", "to", "items", "share"), list(_buckets(times)))
    return p.figure(item_times_plot.item_times_plot(times), item_times_plot.LEGEND, numbers)


def _row(worker: WorkerProfile) -> tuple[str, ...]:
    present = worker.present_seconds
    return (
        worker.name,
        f"{worker.items:,}",
        f"{worker.failed:,}",
        q.seconds(present),
        q.seconds(worker.busy_seconds),
        q.share(worker.busy_seconds / present if present else None),
        q.seconds(worker.last_busy),
    )


def _buckets(times: ItemTimes) -> Iterator[tuple[str, ...]]:
    for bucket in times.used:
        count = times.counts[bucket]
        yield q.seconds(edge(bucket)), q.seconds(edge(bucket + 1)), f"{count:,}", q.share(count / times.total)


def _percentiles(times: ItemTimes) -> str:
    return ", ".join(f"p{percent:g} about {q.seconds(times.percentile(percent))}" for percent in (50.0, 90.0, 99.0))
