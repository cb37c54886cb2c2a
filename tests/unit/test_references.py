"""Names for callables, and callables by name."""

import collections
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from piecework.errors import UsageError
from piecework_producer.references import load, reference, refuse_while_a_worker_imports, with_import_path
from tests import cli_handlers


class Handlers:
    @staticmethod
    def static(item: int) -> int:
        return item

    @classmethod
    def of_class(cls, item: int) -> int:
        return item

    def bound(self, item: int) -> int:
        return item


def test_a_function_is_named_by_its_module_and_a_string_passes() -> None:
    assert reference(cli_handlers.square) == "tests.cli_handlers:square"
    assert reference("any:thing") == "any:thing"
    assert reference(math.sqrt) == "math:sqrt"
    assert reference(collections.OrderedDict) == "collections:OrderedDict"
    assert reference(Handlers.static) == f"{__name__}:Handlers.static"
    assert reference(Handlers.of_class) == f"{__name__}:Handlers.of_class"


def test_what_a_worker_cannot_import_is_refused() -> None:
    def nested(item: int) -> int:
        return item

    for handler in (lambda item: item, nested, Handlers().bound, object()):
        with pytest.raises(UsageError, match="has no importable name"):
            reference(handler)  # type: ignore[arg-type]


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("__main__")
    module.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def of_main(item: int) -> int:
    return item


def test_a_function_of_the_script_is_named_after_the_file(
    main_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_main, "__module__", "__main__")
    vars(main_module)["of_main"] = of_main

    with pytest.raises(UsageError, match="typed interactively"):
        reference(of_main)
    main_module.__file__ = "/some/where/script.py"
    assert reference(of_main) == "script:of_main"
    main_module.__spec__ = math.__spec__  # python -m package.module
    assert reference(of_main) == "math:of_main"


def test_workers_find_the_module_where_the_caller_has_found_it() -> None:
    root = str(Path(__file__).parent.parent.parent)

    assert with_import_path({"A": "b"}, "m:f") == {"A": "b"}
    assert with_import_path({"A": "b"}, math.sqrt) == {"A": "b"}
    assert with_import_path({"A": "b"}, pytest.fixture) == {"A": "b"}, "what is installed is left alone"
    assert with_import_path({}, cli_handlers.square) == {"PYTHONPATH": root}
    assert with_import_path({"PYTHONPATH": "/x"}, cli_handlers.square) == {"PYTHONPATH": f"{root}:/x"}


def test_a_worker_that_imports_its_handler_submits_nothing(main_module: ModuleType) -> None:
    main_module.__file__ = "/some/where/script.py"
    refuse_while_a_worker_imports()
    main_module.__file__ = "/venv/bin/piecework-worker"
    with pytest.raises(UsageError, match="if __name__ == '__main__'"):
        refuse_while_a_worker_imports()


def test_load_tells_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("reduction_of_test.py").write_text("def add(results): return sum(results)\nnumber = 5\n")
    Path("broken_of_test.py").write_text("1 / 0\n")

    assert load("reduction_of_test:add", "--reduce")([1, 2]) == 3
    for text, problem in (
        ("nothing", "not of the form"),
        ("no_such_module_here:f", "ModuleNotFoundError"),
        ("reduction_of_test:sub", "AttributeError"),
        ("reduction_of_test:number", "not callable"),
        ("broken_of_test:f", "ZeroDivisionError"),
    ):
        with pytest.raises(UsageError, match=rf"^--reduce '?{text}'? .*{problem}"):
            load(text, "--reduce")
