"""Names for callables: what workers get is a string, and what the producer runs itself it finds by one."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import piecework
from piecework.errors import UsageError


def reference(handler: str | Callable[..., Any]) -> str:
    """`package.module:function` for a callable; strings pass.

    A function of the script that is being run is named after the script's file. Raises `UsageError` for what
    a worker cannot import: a lambda, a nested function, a bound method, a callable without a module.
    """
    if isinstance(handler, str):
        return handler
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not module or not name or not _is_found(sys.modules.get(module), name, handler):
        raise UsageError(f"handler {handler!r} has no importable name: use a function at the top level of a module")
    return f"{_importable_name(module, name)}:{name}"


def _is_found(module: ModuleType | None, name: str, handler: Callable[..., Any]) -> bool:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return bool(found == handler)


def _importable_name(module: str, name: str) -> str:
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        return main.__spec__.name
    script = getattr(main, "__file__", None)
    if script is None:
        raise UsageError(f"handler {name!r} was typed interactively: put it in a module that workers can import")
    return Path(script).stem


def with_import_path(environ: Mapping[str, str], handler: str | Callable[..., Any]) -> dict[str, str]:
    """An environment in which workers find a handler's module where this process has found it.

    A script's own directory is on the path of that script only. What is installed is left alone.
    """
    place = None if isinstance(handler, str) else _place(sys.modules.get(handler.__module__))
    if place is None:
        return dict(environ)
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(place), environ.get("PYTHONPATH")]))}


def _place(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    path = Path(file).resolve()
    installed = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    if any(path.is_relative_to(place) for place in installed):
        return None
    name = module.__spec__.name if module.__spec__ is not None else ""
    depth = name.count(".") + (path.name == "__init__.py")
    return path.parents[depth]


def refuse_while_a_worker_imports() -> None:
    """Raise `UsageError` in a worker that imports its handler: the import would start a run, whose workers import …"""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else Path(getattr(main, "__file__", None) or "").name
    if name not in ("piecework_worker.main", "piecework-worker"):
        return
    try:
        piecework.current()
    except LookupError:
        raise UsageError(
            "a worker that imports its handler was about to submit a run: put the call of submit() or run() under "
            "if __name__ == '__main__':"
        ) from None


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
    except Exception as error:
        raise UsageError(f"{what} {text} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UsageError(f"{what} {text} is not callable")
    return found  # type: ignore[no-any-return]
