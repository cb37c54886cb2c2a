"""The Lua files: complete, documented, and given what they expect."""

import re
from importlib.resources import files

import pytest

from piecework import ledger
from piecework.keys import RunKeys
from piecework.scripts import VERBS, source

LUA = files("piecework") / "lua"


def test_each_file_is_a_verb_and_each_verb_a_file() -> None:
    assert sorted(VERBS) == sorted(
        name.removesuffix(".lua") for file in LUA.iterdir() if not (name := file.name).startswith("_")
    )


@pytest.mark.parametrize("verb", VERBS)
def test_header_tells_purpose_arguments_reply_and_invariant(verb: str) -> None:
    header = (LUA / f"{verb}.lua").read_text().split("\nlocal ")[0]
    assert header.startswith(f"-- {verb}: ")
    for part in ("-- ARGV: ", "-- Returns: ", "-- Invariant: "):
        assert f"\n{part}" in header, part


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_called_by_the_ledger_alone_and_with_the_prelude(verb: str) -> None:
    assert source(verb).startswith((LUA / "_prelude.lua").read_text())
    text = files("piecework").joinpath("ledger.py").read_text()
    assert f'_scripts.call("{verb}"' in text or f'_scripts.call(\n            "{verb}"' in text, ledger.__name__


def test_the_prelude_unpacks_the_keys_in_their_order() -> None:
    prelude = (LUA / "_prelude.lua").read_text()
    names = re.search(r"local (RUN,[A-Z_,\s]+) = unpack\(KEYS\)", prelude)
    assert names is not None
    assert [name.strip().lower() for name in names[1].split(",")] == list(RunKeys.__dataclass_fields__)


@pytest.mark.parametrize("verb", VERBS)
def test_numbers_become_text_exactly(verb: str) -> None:
    """`tostring` and `..` round to 14 digits; `text` does not."""
    body = (LUA / f"{verb}.lua").read_text()
    assert "tostring" not in body
    assert "%g" not in body
    assert "os.time" not in body
