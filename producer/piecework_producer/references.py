"""Names for callables: what the producer hands to workers is a string, what it runs itself it finds by one."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from piecework.errors import UsageError


def reference(handler: str | Callable[..., Any]) -> str:
    """`package.module:function` for a callable; strings pass.

    A function of the script that is being run is named after the script's file. Raises `UsageError` for what a worker
    cannot import: a lambda, a nested function, a callable without a module.
    """
    if isinstance(handler, str):
        return handler
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not module or not name or "<" in name:
        raise UsageError(f"handler {handler!r} has no importable name: use a function at the top level of a module")
    if module == "__main__":
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None:
            raise UsageError(f"handler {name!r} was typed interactively: put it in a module that workers can import")
        module = Path(script).stem
    return f"{module}:{name}"


def load(text: str, what: str) -> Callable[..., Any]:
    """The callable that `package.module:function` names. Raises `UsageError` naming `what`."""
    module, _, name = text.partition(":")
    if not module or not name:
        raise UsageError(f"{what} {text!r} is not of the form package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{what} {text}: {error}") from error
    if not callable(found):
        raise UsageError(f"{what} {text} is not callable")
    return found  # type: ignore[no-any-return]
