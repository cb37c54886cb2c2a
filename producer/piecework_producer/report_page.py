"""The page of one run: `piecework report RUN`."""

import time
from collections.abc import Mapping

from piecework_producer import page as p
from piecework_producer import profile_parts as parts
from piecework_producer import quantities as q
from piecework_producer.markup import Content, Element
from piecework_producer.run_profile import MOST_ROWS, RunProfile


def report_page(profile: RunProfile, facts: Mapping[str, str]) -> str:
    """The document. `facts`: where and with what it was made."""
    status = profile.status
    lead = f"A run of piecework: {profile.spec.handler}, {status.total:,} items. State: {status.state}."
    return p.page(
        f"Run {status.run}",
        lead,
        *_warnings(profile),
        p.cards(_cards(profile)),
        *_throughput(profile),
        *_workers(profile),
        *_item_times(profile),
        p.section("The run", p.facts_table({**_facts(profile), **facts})),
        p.terms(p.TERMS),
    )


def _warnings(profile: RunProfile) -> list[Content]:
    status, said = profile.status, []
    if not status.state.over:
        said.append(f"This run is not over ({status.state}): what stands here is how far it had got.")
    if status.reason:
        said.append(f"{status.state}: {status.reason}")
    if status.failed:
        said.append(f"{status.failed:,} of {status.total:,} items failed; they count as items here.")
    if profile.events_trimmed:
        said.append(
            "The ledger keeps about 2,000 events, and this run had more. Workers whose joining is forgotten are taken "
            "to be present from their first work; marks and counts of events are those of the last part."
        )
    return [p.paragraph(words, class_="warning") for words in said]


def _cards(profile: RunProfile) -> list[tuple[str, str, str]]:
    times = profile.item_times
    share, idle = profile.tail_share, profile.idle_tail_share
    return [
        ("Items", f"{profile.items:,}", f"of {profile.status.total:,}" if profile.items < profile.status.total else ""),
        ("Duration", q.seconds(profile.span_seconds), f"first item after {q.seconds(profile.first_work_seconds)}"),
        ("Throughput", q.rate(profile.items_per_second, "/s"), "items, over the whole run"),
        ("Workers", f"{len(profile.workers):,}", f"{q.seconds(profile.worker_seconds)} of worker time"),
        ("Queue share", q.share(profile.queue_share), "of the worker time, not busy"),
        ("Tail share", q.share(share), f"of the worker time; idle: {q.share(idle)}"),
        ("Item time", f"≈ {q.seconds(times.percentile(50))}" if times.total else "-",
         f"median; p99 ≈ {q.seconds(times.percentile(99))}" if times.total else ""),
    ]  # fmt: skip


def _throughput(profile: RunProfile) -> list[Element]:
    if not profile.items or profile.span_seconds <= 0:
        return [p.section("Throughput over time", p.paragraph("Nothing has been recorded."))]
    return [p.section("Throughput over time", parts.throughput(profile))]


def _workers(profile: RunProfile) -> list[Element]:
    if not profile.workers:
        return [p.section("Timeline of the workers", p.paragraph("No worker had a part in it."))]
    return [p.section("Timeline of the workers", *timeline_text(profile), parts.timeline(profile))]


def timeline_text(profile: RunProfile) -> list[Element]:
    """What the timeline leaves out, if anything."""
    more = len(profile.workers) - sum(worker.bins is not None for worker in profile.workers)
    if not more:
        return []
    return [p.paragraph(f"The first {MOST_ROWS} workers are shown; {more:,} more are in the figures above.")]


def _item_times(profile: RunProfile) -> list[Element]:
    times = profile.item_times
    if not times.total:
        return [p.section("Item times", p.paragraph("No item was timed."))]
    return [p.section("Item times", parts.item_times(times))]


def _facts(profile: RunProfile) -> dict[str, str]:
    status, spec = profile.status, profile.spec
    events = ", ".join(f"{kind} {count:,}" for kind, count in sorted(profile.events.items()))
    return {
        "Run": status.run,
        "Handler": spec.handler,
        "Items": f"{status.total:,} ({spec.items}): {status.done:,} done, {status.failed:,} failed",
        "Computed twice": f"{status.duplicates:,} items, refused",
        "Sealed": at(profile.started_at),
        "Ended": at(status.ended_at) if status.ended_at else "not yet",
        "Events": events or "none",
    }


def at(unix_seconds: float) -> str:
    """A time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_seconds))
