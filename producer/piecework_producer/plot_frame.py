"""The frame of a plot: two axes with round numbers, their titles and units, and the way from figures to coordinates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from piecework_producer.markup import Element, append, coordinate, element

WIDTH = 760.0
_TICK_LETTER = 6.8
"""Width of a letter of a tick label, 12 px high, generously."""


@dataclass(frozen=True)
class Axis:
    """From `low` to `high` with labelled ticks."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value is, 0 at `low` and 1 at `high`."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Frame:
    """An SVG with axes; `x` and `y` give coordinates, `add` draws."""

    def __init__(
        self, title: str, description: str, x: Axis, y: Axis | None, height: float, left: float | None = None
    ) -> None:
        """`y` None: the plot has rows of its own, beside `left` pixels of labels."""
        self._x_axis, self._y_axis = x, y
        widest = max((len(label) for _, label in y.ticks), default=0) if y else 0
        self.left = left if left is not None else 34 + _TICK_LETTER * widest
        self.right, self.top, self.bottom = WIDTH - 22, 12.0, height - 46
        self.svg = element(
            "svg", element("title", title), element("desc", description), class_="plot", role="img",
            viewBox=f"0 0 {coordinate(WIDTH)} {coordinate(height)}",
        )  # fmt: skip
        self._draw_x(x, height)
        if y is not None:
            self._draw_y(y)

    def x(self, value: float) -> float:
        """The coordinate of a value on the horizontal axis."""
        return self.left + (self.right - self.left) * self._x_axis.place(value)

    def y(self, value: float) -> float:
        """The coordinate of a value on the vertical axis."""
        assert self._y_axis is not None  # noqa: S101 - a plot with rows asks for none
        return self.bottom - (self.bottom - self.top) * self._y_axis.place(value)

    def add(self, *elements: Element) -> None:
        """Draw on top of what is there."""
        append(self.svg, *elements)

    def line(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        """A line through values."""
        path = "L".join(f"{coordinate(self.x(x))} {coordinate(self.y(y))}" for x, y in points)
        self.add(element("path", d=f"M{path}", class_=class_))

    def text(self, x: float, y: float, words: str, class_: str = "note", anchor: str = "start") -> None:
        """Words at coordinates."""
        self.add(element("text", words, x=x, y=y, class_=class_, text_anchor=anchor))

    def _draw_x(self, axis: Axis, height: float) -> None:
        for value, label in axis.ticks:
            x = self.x(value)
            self.add(element("path", d=f"M{coordinate(x)} {self.top}V{coordinate(self.bottom + 4)}", class_="grid"))
            self.text(x, self.bottom + 18, label, "tick", "middle")
        self.text((self.left + self.right) / 2, height - 8, axis.title, "axis", "middle")
        self.add(element("path", d=f"M{coordinate(self.left)} {coordinate(self.bottom)}H{self.right}", class_="base"))

    def _draw_y(self, axis: Axis) -> None:
        for value, label in axis.ticks:
            y = self.y(value)
            self.add(element("path", d=f"M{coordinate(self.left)} {coordinate(y)}H{self.right}", class_="grid"))
            self.text(self.left - 6, y + 4, label, "tick", "end")
        middle = (self.top + self.bottom) / 2
        self.add(
            element(
                "text", axis.title, class_="axis", text_anchor="middle",
                transform=f"translate(13 {coordinate(middle)}) rotate(-90)",
            )
        )  # fmt: skip
