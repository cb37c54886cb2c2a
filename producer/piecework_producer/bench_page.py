"""The page of a benchmark: `piecework bench`."""

from piecework_producer import page as p
from piecework_producer import profile_parts as parts
from piecework_producer import quantities as q
from piecework_producer.benchmark import Benchmark, Degree
from piecework_producer.markup import Element, element
from piecework_producer.report_page import timeline_text
from piecework_producer.scalability import LEAST_DEGREES
from piecework_producer.scaling_plot import LAW_LEGEND, LEGEND, scaling_plot
from piecework_producer.share_plot import LEGEND as SHARE_LEGEND
from piecework_producer.share_plot import share_plot

_TERMS = {
    "Throughput": "Items recorded, divided by the time from the sealing of the pile, when all N workers had joined and "
    "waited for it, to the run's end, by the server's clock. Starting the workers is not in it.",
    "Speed-up, efficiency": "The speed-up is the throughput divided by that of one worker at the smallest degree that "
    "was measured; the efficiency is the speed-up divided by N.",
    "Universal Scalability Law": "X(N) = λN / (1 + σ(N − 1) + κN(N − 1)). λ is the throughput of one worker, σ "
    "(contention) what has to wait its turn, κ (coherency) what each pair of workers costs to keep in step. With κ > 0 "
    "throughput has a peak at N = √((1 − σ)/κ). Fitted to all repetitions by least squares of the relative error, with "
    "σ, κ ≥ 0. N. J. Gunther, Guerrilla Capacity Planning, Springer 2007.",
}


def bench_page(bench: Benchmark) -> str:
    """The document."""
    return p.page(
        f"Benchmark: {bench.workload}",
        f"Parallel throughput of piecework, {bench.facts.get('Date', '')}. {bench.pile}",
        p.cards(_cards(bench)),
        p.section(
            "Scaling curve",
            p.figure(scaling_plot(bench), (*LEGEND, LAW_LEGEND) if bench.law else LEGEND, None),
            _numbers(bench),
            *_law(bench),
        ),
        *_shares(bench),
        p.section(
            "The workers at each degree",
            p.paragraph("Of each degree, the repetition whose throughput is in the middle.", class_="lead"),
            *(_degree(degree, degree is bench.degrees[-1]) for degree in bench.degrees),
        ),
        p.section("How it was measured", p.facts_table(bench.facts)),
        p.terms(p.TERMS, _TERMS),
    )


def _cards(bench: Benchmark) -> list[tuple[str, str, str]]:
    best = max(bench.degrees, key=lambda degree: degree.rate)
    last, law = bench.degrees[-1], bench.law
    found = [
        ("Highest throughput", q.rate(best.rate, "/s"), f"items, with N = {best.parallelism}"),
        (f"Speed-up at N = {last.parallelism}", f"{bench.speedup(last):.2f}",
         f"efficiency {q.share(bench.efficiency(last))}"),
    ]  # fmt: skip
    if law is not None:
        peak = f"{law.peak:,.0f}" if law.peak is not None else "none"
        found += [
            ("λ, one worker", q.rate(law.rate, "/s"), "items, by the fitted law"),
            ("σ, contention", q.coefficient(law.sigma), _range([each.sigma for each in bench.laws_by_repetition])),
            ("κ, coherency", q.coefficient(law.kappa), _range([each.kappa for each in bench.laws_by_repetition])),
            ("N of the peak", peak, _about_peak(bench)),
        ]
    return found


def _about_peak(bench: Benchmark) -> str:
    law, most = bench.law, bench.degrees[-1].parallelism
    if law is None or law.peak is None:
        return "more workers do more, by this fit"
    return f"beyond what was measured (up to {most})" if law.peak > most else ""


def _range(values: list[float]) -> str:
    if len(values) < 2:
        return ""
    return f"{q.coefficient(min(values))} to {q.coefficient(max(values))} by repetition"


def _numbers(bench: Benchmark) -> Element:
    counts = {len(degree.repetitions) for degree in bench.degrees}
    header = ("N", "items/s", "slowest", "fastest", "speed-up", "efficiency", "law", "tail", "queue", "start")
    rows = [
        (
            str(degree.parallelism),
            q.rate(degree.rate),
            q.rate(degree.slowest),
            q.rate(degree.fastest),
            f"{bench.speedup(degree):.2f}",
            q.share(bench.efficiency(degree)),
            q.rate(bench.law.throughput(degree.parallelism) if bench.law else None),
            q.share(degree.tail_share),
            q.share(degree.queue_share),
            q.seconds(degree.start_seconds),
        )
        for degree in bench.degrees
    ]
    return p.table(f"Medians of {'/'.join(map(str, sorted(counts)))} repetitions", header, rows)


def _law(bench: Benchmark) -> list[Element]:
    law = bench.law
    if law is None:
        return [p.paragraph(f"No law is fitted: {bench.why_no_law}.", class_="warning")]
    said = [
        p.paragraph(
            element("strong", "The fitted law. "),
            f"λ = {q.rate(law.rate)} items/s, σ = {q.coefficient(law.sigma)}, κ = {q.coefficient(law.kappa)}; "
            f"R² = {law.r_squared:.4f} over {sum(len(degree.repetitions) for degree in bench.degrees)} points. "
            + (
                f"By it, throughput is highest with N = {law.peak:,.0f} ({q.rate(law.throughput(law.peak))} items/s)."
                if law.peak is not None
                else f"By it, throughput comes near to {q.rate(law.ceiling)} items/s and does not reach it."
                if law.ceiling is not None
                else "By it, each worker adds as much as the one before."
            ),
        )
    ]
    if law.degrees == LEAST_DEGREES:
        said.append(
            p.paragraph(
                "Three degrees are as many as the law has coefficients: it goes through almost any three points, and "
                "nothing here says that it holds beyond them.",
                class_="warning",
            )
        )
    return said


def _shares(bench: Benchmark) -> list[Element]:
    if all(degree.queue_share is None for degree in bench.degrees):
        return []
    rows = [
        (str(degree.parallelism), q.share(degree.queue_share), q.share(degree.idle_tail_share),
         q.share(degree.tail_share))
        for degree in bench.degrees
    ]  # fmt: skip
    numbers = p.table("Shares of the worker time, medians", ("N", "queue share", "idle tail", "tail share"), rows)
    return [p.section("Where the worker time went", p.figure(share_plot(bench), SHARE_LEGEND, numbers))]


def _degree(degree: Degree, opened: bool) -> Element:
    profile = degree.typical.profile
    shown = [
        element("h3", "Timeline of the workers"),
        *timeline_text(profile),
        parts.timeline(profile),
        element("h3", "Throughput over time"),
        parts.throughput(profile),
    ]
    if profile.item_times.total:
        shown += [element("h3", "Item times"), parts.item_times(profile.item_times)]
    words = f"N = {degree.parallelism}: repetition {degree.typical.number}, {q.rate(degree.typical.rate)} items/s"
    made = element("details", element("summary", words), *shown, class_="part")
    if opened:
        made.set("open", "open")
    return made
