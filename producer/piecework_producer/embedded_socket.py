"""Where the embedded server's Unix socket is: paths of sockets are short."""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

from piecework.errors import ServerUnusable

# sun_path has 108 bytes on Linux (unix(7)) and 104 on macOS, a closing zero included.
SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
ELSEWHERE: Final = "or set PIECEWORK_STATE_DIR to another directory, or give a server with --redis URL"


def socket_path(home: Path) -> Path:
    """`redis.sock` in `home` or, if that is too long for a socket, in a short directory private to us.

    The link `run` in `home` tells users with another TMPDIR which. To be called with start.lock held.
    """
    if _fits(home / "redis.sock"):
        return home / "redis.sock"
    link = home / "run"
    name = f"piecework-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    places = [Path(tempfile.gettempdir()) / name, Path("/tmp") / name]  # noqa: S108
    if link.is_symlink() and link.readlink().name == name:
        places.insert(0, link.readlink())
    for place in places:
        if not _fits(place / "redis.sock") or not place.parent.is_dir():
            continue
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        facts = place.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise ServerUnusable(
                f"{place}, where the embedded server would put its socket, is not a directory of yours with "
                f"mode 0700. Remove it, {ELSEWHERE}."
            )
        if not link.is_symlink() or link.readlink() != place:
            link.unlink(missing_ok=True)
            link.symlink_to(place)
        return place / "redis.sock"
    raise ServerUnusable(
        f"{home} is too long for a socket ({SOCKET_PATH_BYTES} bytes), and so is the directory for temporary "
        f"files: set TMPDIR to a short one, {ELSEWHERE}."
    )


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= SOCKET_PATH_BYTES
