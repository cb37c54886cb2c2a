"""HTML and SVG as a tree: what is put into it is text, so that no name of a run or a handler can be markup."""

from unicodedata import category
from xml.etree import ElementTree

Element = ElementTree.Element
Content = Element | str | None


def element(tag: str, *content: Content, **attributes: str | float | None) -> Element:
    """`element("text", "5 s", text_anchor="end", x=3.14159)`; None is left out, `class_` is class."""
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = coordinate(value) if isinstance(value, float) else _text(str(value))
            made.set(name.rstrip("_").replace("_", "-"), text)
    append(made, *content)
    return made


def append(parent: Element, *content: Content) -> None:
    """Add text and elements in their order."""
    for each in content:
        if each is None:
            continue
        if isinstance(each, Element):
            parent.append(each)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + _text(each)
        else:
            parent.text = (parent.text or "") + _text(each)


def coordinate(value: float) -> str:
    """A number to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def to_html(root: Element) -> str:
    """A document."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def _text(value: str) -> str:
    """Without the characters that no document may hold: controls and lone surrogates."""
    return "".join("\ufffd" if category(sign) in ("Cc", "Cs") and sign not in "\n\t" else sign for sign in value)
