"""A page that opens by itself: one HTML file with its style and its plots in it, no scripts, nothing from elsewhere.

What is put into it is text (see `markup`). Dark or light follows the reader's system. Each plot has a title and a
description for who does not see it, a legend, and its numbers in a table.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from piecework_producer.markup import Content, Element, element, to_html

Legend = Sequence[tuple[str, str]]
"""(class of what is drawn, what it means)."""
_LINES = ("ideal", "law", "percentile", "mean")

TERMS = {
    "Worker time": "The sum over all workers of the time that each was present: from its joining, or from the sealing "
    "of the pile if that was later, until it left, was seen to die, or the run ended.",
    "Busy": "From the moment that a chunk of items is in a worker's hands until the chunk's last commit.",
    "Queue share": "The part of the worker time that is not busy: waiting for work, claims, forks, the last commit of "
    "each chunk; also work that was lost in a crash, and attempts that all failed and were tried again.",
    "Tail": "From the moment that the first worker, of those present at the end, ran out of work for good, until the "
    "end of the run. The tail share is the part of the worker time that lies in it, busy or not; the idle tail share "
    "is the part that workers were present after their own last item.",
    "Item times": "What the handler took for an item, counted in buckets whose edges are powers of four from 1 µs. "
    "Percentiles are right to the bucket and estimated within it. Items below 20 µs, and lists of a batch handler, are "
    "timed together, and count with their mean.",
}


def page(title: str, lead: str, *parts: Content) -> str:
    """The whole document."""
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    body = element("body", element("h1", title), element("p", lead, class_="lead"), element("main", *parts))
    return to_html(element("html", head, body, lang="en"))


def section(title: str, *parts: Content) -> Element:
    """A heading and what stands below it."""
    return element("section", element("h2", title), *parts)


def paragraph(*content: Content, class_: str | None = None) -> Element:
    """Text."""
    return element("p", *content, class_=class_)


def cards(facts: Iterable[tuple[str, str, str]]) -> Element:
    """The few figures that count: (what, figure, a remark or "")."""
    return element(
        "dl",
        *(
            element("div", element("dt", what), element("dd", figure),
                    element("dd", remark, class_="note") if remark else None, class_="card")
            for what, figure, remark in facts
        ),
        class_="cards",
    )  # fmt: skip


def figure(plot: Element, legend: Legend, numbers: Element | None) -> Element:
    """A plot, what its colours mean, and its numbers."""
    details = element("details", element("summary", "The numbers"), numbers) if numbers is not None else None
    return element("figure", _legend(legend), element("div", plot, class_="scroll"), details)


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Element:
    """Numbers."""
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", name, scope="col") for name in header))),
        element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows)),
    )
    return element("div", made, class_="scroll")


def facts_table(facts: Mapping[str, str]) -> Element:
    """Names and words."""
    rows = (
        element("tr", element("th", name, scope="row"), element("td", words, class_="words"))
        for name, words in facts.items()
    )
    return element("table", element("tbody", *rows))


def terms(wanted: Iterable[str], more: Mapping[str, str] | None = None) -> Element:
    """What the words mean, exactly."""
    chosen = {name: TERMS[name] for name in wanted} | dict(more or {})
    lines = [part for name, text in chosen.items() for part in (element("dt", name), element("dd", text))]
    return section("What the words mean", element("dl", *lines, class_="terms"))


def _legend(legend: Legend) -> Element:
    return element("ul", *(element("li", _swatch(class_), words) for class_, words in legend), class_="legend")


def _swatch(class_: str) -> Element:
    if class_ in _LINES:
        drawn = element("path", d="M1 7H25", class_=class_)
    elif class_ == "spread":
        drawn = element("path", d="M13 1V13M9 1h8M9 13h8", class_=class_)
    elif class_ in ("dot", "median"):
        drawn = element("circle", cx=13, cy=7, r=5 if class_ == "median" else 3, class_=class_)
    elif class_ == "mark":
        drawn = element("path", d="M13 2l5 5l-5 5l-5 -5z", class_=class_)
    else:
        drawn = element("rect", x=1, y=1, width=24, height=12, class_=class_)
    return element("svg", drawn, viewBox="0 0 26 14", aria_hidden="true")
