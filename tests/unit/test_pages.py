"""The pages: well-formed, with nothing from elsewhere, and with no name that becomes markup."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest

from piecework.records import Spec
from piecework.states import State
from piecework_producer import quantities as q
from piecework_producer.bench_page import bench_page
from piecework_producer.benchmark import Benchmark, Degree, Repetition
from piecework_producer.report_page import report_page
from piecework_producer.run_profile import RunProfile, profile
from piecework_producer.surroundings import command
from tests.unit.test_run_profile import BEGIN, JOINED, commit, event, profiled, status

HOSTILE = '"><script>alert(1)</script><img src=http://x onerror=y>&amp;\x00\udcff'
_VOID = {"meta"}


class Checked(HTMLParser):
    """Every element that begins ends, and none of them fetches or runs anything."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object", "use", "image", "a", "form"), tag
        for name, value in attributes:
            assert name not in ("src", "href", "style"), name
            assert not name.startswith("on"), name
            assert "url(" not in (value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            assert not re.search(r"url\(|@import|http", data)
        self.text += data


def plots(html: str) -> Iterator[ElementTree.Element]:
    for text in re.findall(r"<svg class=\"plot\".*?</svg>", html, re.DOTALL):
        yield ElementTree.fromstring(text)


def checked(html: str) -> str:
    """The text of a page, after a look at its plots: titled, labelled, and with nothing outside of the picture."""
    text = Checked(html).text
    html.encode()
    assert len(html) < 1_000_000
    assert html.startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in html
    for svg in plots(html):
        assert svg.get("role") == "img"
        assert all(svg.findtext(name) for name in ("title", "desc"))
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        assert any(re.search(r"\(.+\)$", label.text or "") for label in svg.iter("text")), "an axis with its unit"
        for drawn in svg.iter():
            places = {name: float(drawn.get(name, 0)) for name in ("x", "y", "cx", "cy", "width", "height")}
            assert -1 <= places["x"] <= places["x"] + places["width"] <= width + 1, drawn.attrib
            assert -1 <= places["y"] <= places["y"] + places["height"] <= height + 1, drawn.attrib
            assert 0 <= places["cx"] <= width
            assert 0 <= places["cy"] <= height
            assert "nan" not in str(drawn.attrib)
        for label in svg.iter("text"):
            if label.get("text-anchor") == "end":
                assert float(label.attrib["x"]) >= 6 * len(label.text or ""), f"{label.text} is clipped"
    return text


def full(seconds: float = 10.0, items: int = 100) -> RunProfile:
    marks = [event(3, "crash", "a"), event(4, "pause"), event(5, "timeout", "a"), event(10, "end")]
    return profiled(
        [*JOINED, *marks],
        [commit(4, "a", 4, items // 2), commit(7, "b", 3, items - items // 2, bucket=9)],
        seconds=seconds,
        done=items,
    )


def bench(degrees: tuple[int, ...], repetitions: int = 3) -> Benchmark:
    def repetition(workers: int, number: int) -> Repetition:
        return Repetition(workers, number, full(items=round(110 * workers / (1 + workers / 10)) + number), 0.5)

    return Benchmark(
        HOSTILE, "100 items.",
        [Degree(n, [repetition(n, number) for number in range(1, repetitions + 1)]) for n in degrees],
        {"Command": HOSTILE},
    )  # fmt: skip


def test_the_page_of_a_run() -> None:
    text = checked(html := report_page(full(), {"Server": "Valkey"}))
    assert [svg.findtext("title") for svg in plots(html)] == [
        "Throughput over time", "Timeline of the workers", "Distribution of item times",
    ]  # fmt: skip
    assert "crash at 3 s" in text
    for term in ("Queue share", "Tail", "Worker time", "Busy"):
        assert term in text


def test_pages_of_runs_with_little_in_them() -> None:
    nothing = profiled([event(0, "open"), event(0, "end")], [], seconds=0.0)
    assert "Nothing has been recorded" in checked(report_page(nothing, {}))
    waiting = profiled([event(0, "open")], [], state=State.RUNNING)
    assert "This run is not over (running)" in checked(report_page(waiting, {}))
    at_once = profiled([*JOINED, event(0.0001, "end")], [commit(0, "a", 0, 1)], seconds=0.0001, done=1)
    checked(report_page(at_once, {}))
    trimmed = profiled([event(5, "claim", "a")], [commit(6, "a", 1, 1)], done=1)
    assert "keeps about 2,000 events" in checked(report_page(trimmed, {}))


def test_names_stay_text() -> None:
    worker = HOSTILE.replace("\udcff", "")
    hostile = msgspec.structs.replace(status(done=1), run=HOSTILE, reason=HOSTILE)
    made = profile(hostile, Spec(handler=HOSTILE), BEGIN, [event(0, "open")], [commit(5, worker, 5, 1)])
    text = checked(report_page(made, {"Server": HOSTILE}))
    assert text.count("<script>alert(1)</script>") >= 4


@pytest.mark.parametrize("degrees", [(1,), (1, 2), (2, 3, 4), (1, 2, 4, 8, 16), (1, 1000, 100_000)])
def test_the_page_of_a_benchmark(degrees: tuple[int, ...]) -> None:
    found = bench(degrees)
    text = checked(html := bench_page(found))
    assert sum(svg.findtext("title") == "Scaling curve" for svg in plots(html)) == 1
    assert ("needs at least 3 degrees" in text) == (len(degrees) < 3)
    assert ("as many as the law has coefficients" in text) == (len(degrees) == 3)
    record = found.to_json()
    assert [degree["parallelism"] for degree in record["degrees"]] == list(degrees)
    assert (record["law"] is None) == (len(degrees) < 3)
    assert record["degrees"][0]["efficiency"] == pytest.approx(1)


def test_a_benchmark_s_figures() -> None:
    found = bench((1, 4, 8))
    one, four, _ = found.degrees
    assert one.rates == pytest.approx([10.1, 10.2, 10.3])
    assert (one.rate, one.slowest, one.fastest) == pytest.approx((10.2, 10.1, 10.3))
    assert one.typical.number == 2
    assert found.speedup(four) == pytest.approx(31.6 / 10.2)
    assert found.efficiency(four) == pytest.approx(31.6 / 10.2 / 4)
    assert len(found.laws_by_repetition) == 3


def test_figures_as_people_write_them() -> None:
    assert [q.seconds(value) for value in (0, 3.14e-6, 0.0123, 4.5, 119, 600, 7300, 200_000)] == [
        "0 s", "3.14 µs", "12.3 ms", "4.5 s", "119 s", "10 min", "2.03 h", "2.31 d",
    ]  # fmt: skip
    assert [q.rate(value) for value in (None, 0.03125, 4.2149, 1234.5, 4_217_000.0)] == [
        "-", "0.0312", "4.21", "1,230", "4,220,000",
    ]  # fmt: skip
    assert q.ticks(0, 9.7) == [0, 2, 4, 6, 8]
    assert q.ticks(0, 0.07) == [0, 0.02, 0.04, 0.06]
    assert q.log_ticks(3e-6, 3e-4) == pytest.approx([5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4])
    assert [q.tick(value) for value in (0, 0.5, 1500, 25_000, 2e6, 3e9)] == ["0", "0.5", "1,500", "25k", "2M", "3G"]


def test_the_command_on_the_page_has_no_secret() -> None:
    words = ["bench", "m:f", "--redis=redis://me:hush@host", "--env", "TOKEN=hush", "--env=KEY=hush", "-p", "1,2"]
    shown = command(words)
    assert "hush" not in shown
    assert "TOKEN" in shown
    assert shown.endswith("-p 1,2")
