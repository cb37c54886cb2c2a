"""The timeline of the workers: a row for each, when it was there, when it was busy, and what happened to it.

A row is cut into `run_profile.BINS` parts and each part's busy time rounded to a quarter, so that a run of a million
items takes no more room in the page than one of ten.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from piecework_producer import quantities as q
from piecework_producer.markup import Element, coordinate, element
from piecework_producer.plot_frame import Axis, Frame
from piecework_producer.run_profile import RunProfile, WorkerProfile

LEGEND = (
    ("present", "there, not busy"),
    ("busy", "busy with items (paler: a part of the time)"),
    ("tail", "tail: a worker has run out of work"),
)
MARK_LEGEND = ("mark", "crash, time-out, lost or stolen chunk, pause: point at it")
_LEVELS = 4
_FEW = 12


def timeline_plot(profile: RunProfile) -> Element:
    """Seconds since the seal across, workers down."""
    rows = [worker for worker in profile.workers if worker.bins is not None]
    height, label = (22.0, "tick") if len(rows) <= _FEW else (14.0, "tight")
    names = {worker.name: short_name(worker.name, profile.status.run) for worker in rows}
    longest = max((len(name) for name in names.values()), default=1)
    span = profile.span_seconds or 1.0
    frame = Frame(
        "Timeline of the workers",
        f"{len(profile.workers)} workers over {q.seconds(profile.span_seconds)}; "
        f"{q.share(None if profile.queue_share is None else 1 - profile.queue_share)} of the worker time busy",
        Axis(
            "time since the pile was sealed (s)", 0.0, span, [(value, q.tick(value)) for value in q.ticks(0, span, 8)]
        ),
        None,
        height=62 + height * max(1, len(rows)),
        left=14 + 6.6 * longest,
    )
    if profile.tail_begin is not None and profile.tail_begin < span:
        x = frame.x(profile.tail_begin)
        tip = element("title", f"tail: from {q.seconds(profile.tail_begin)} to the end, {q.share(profile.tail_share)} "
                               "of the worker time")  # fmt: skip
        size = {"width": frame.right - x, "height": frame.bottom - frame.top}
        frame.add(element("rect", tip, x=x, y=frame.top, class_="tail", **size))
    places = {}
    for number, worker in enumerate(rows):
        places[worker.name] = y = frame.top + 3 + number * height
        frame.text(frame.left - 8, y + height / 2 + 2, names[worker.name], label, "end")
        frame.add(*_bars(frame, worker, profile.bin_seconds, y, height - 4))
    _draw_marks(frame, profile, places, height)
    return frame.svg


def short_name(worker: str, run: str) -> str:
    """A worker's name without its run's, at most 16 letters."""
    name = worker.removeprefix("piecework-").removeprefix(f"{run}-")
    return name if len(name) <= 16 else f"…{name[-15:]}"


def _bars(frame: Frame, worker: WorkerProfile, bin_seconds: float, y: float, height: float) -> Iterable[Element]:
    down = coordinate(height)
    present = "".join(
        f"M{coordinate(frame.x(begin))} {coordinate(y)}H{coordinate(frame.x(end))}v{down}H{coordinate(frame.x(begin))}z"
        for begin, end in worker.windows
    )
    tip = f"{worker.name}: {worker.items:,} items, busy {q.seconds(worker.busy_seconds)} of " + q.seconds(
        worker.present_seconds
    )
    yield element("path", element("title", tip), d=present, class_="present")
    bins = worker.bins or []
    width = (frame.right - frame.left) / max(1, len(bins))
    paths: dict[int, str] = {}
    at = 0
    for level, group in groupby(min(_LEVELS, round(_LEVELS * busy / (bin_seconds or 1.0))) for busy in bins):
        count = len(list(group))
        if level:
            begin, long = coordinate(frame.left + at * width), coordinate(count * width)
            paths[level] = paths.get(level, "") + f"M{begin} {coordinate(y)}h{long}v{down}h-{long}z"
        at += count
    for level, path in sorted(paths.items()):
        yield element("path", d=path, class_=f"busy level{level}")


def _draw_marks(frame: Frame, profile: RunProfile, places: dict[str, float], height: float) -> None:
    """A diamond for what happened to a worker, a line for what happened to the run; those in one place as one."""
    together: dict[tuple[float, float | None], Counter[str]] = {}
    for at, kind, worker in profile.marks:
        if worker and worker not in places:
            continue
        place = (round(frame.x(at) / 4) * 4.0, places.get(worker))
        together.setdefault(place, Counter())[f"{kind} at {q.seconds(at)}"] += 1
    for (x, y), kinds in together.items():
        words = ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in list(kinds.items())[:6])
        tip = element("title", words)
        if y is None:
            frame.add(
                element("path", tip, d=f"M{coordinate(x)} {frame.top}V{coordinate(frame.bottom)}", class_="moment")
            )
        else:
            middle = coordinate(y + height / 2 - 7)
            frame.add(element("path", tip, d=f"M{coordinate(x)} {middle}l5 5l-5 5l-5 -5z", class_="mark"))
