"""What was submitted from this machine: the options of the workers of each run, in the state directory.

`piecework retry` starts workers without being told their handler again. It takes that from here, and not from a server
to which others may write: what stands there is data, and data start no command. It is written when
the run is sealed; a crash before costs a convenience. Records go with `piecework delete`.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from piecework.keys import checked_run_id


def note(state_dir: Path, run: str, arguments: Sequence[str]) -> None:
    """Keep the options for `recall`. A directory that cannot be written costs the convenience, not the run."""
    with suppress(OSError):
        file = _file(state_dir, run)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(list(arguments)))
        new.replace(file)


def recall(state_dir: Path, run: str) -> tuple[str, ...] | None:
    """What was noted of the run; None if it was not submitted from here."""
    try:
        return msgspec.json.decode(_file(state_dir, run).read_bytes(), type=tuple[str, ...])
    except (OSError, msgspec.MsgspecError):
        return None


def forget(state_dir: Path, run: str) -> None:
    """Remove the record, if there is one."""
    with suppress(OSError):
        _file(state_dir, run).unlink()


def _file(state_dir: Path, run: str) -> Path:
    return state_dir / "submitted" / f"{checked_run_id(run)}.json"
