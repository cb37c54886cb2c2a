"""The rights of the cluster's server, for the servers of the scenarios: users as in k8s/, all without a password."""

import re
from pathlib import Path
from typing import Any, cast

from redis import Redis

from piecework.keys import CONTRACT
from tests.worker_fixture import ROOT

_SOURCE = ROOT / "k8s" / "base" / "redis" / "users.acl"


def write_users(directory: Path) -> Path:
    """An ACL file for a server: `default` may do everything, and runs of the next contract are there too."""
    text = "".join(line for line in _SOURCE.read_text().splitlines(keepends=True) if not line.startswith("#"))
    text = re.sub(r"<\w+-digest>", "nopass", re.sub(r"\n[ \t]+", " ", text))
    text = text.replace("user default off", "user default on nopass ~* &* +@all")
    text = re.sub(rf"([~&])piecework:{CONTRACT}:\*", rf"\g<0> \1piecework:{CONTRACT + 1}:*", text)
    file = directory / "users.acl"
    file.write_text("\n".join(line for line in text.splitlines() if line.strip()) + "\n")
    return file


def refused(client: Redis) -> list[str]:
    """What somebody tried and may not, since the server has begun."""
    entries = cast(list[dict[str, Any]], client.acl_log())
    return [f"{_text(entry['username'])} may not {_text(entry['object'])}" for entry in entries]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
