"""Amounts of memory as text, as Kubernetes writes them.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from typing import Final

from piecework.errors import UsageError

LEAST_BYTES: Final = 16 << 20
_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip
_SIZE: Final = re.compile(rf"([0-9]{{1,18}}(?:[.][0-9]{{1,9}})?)({'|'.join(_UNITS)})")


def item_memory_bytes(text: str) -> int:
    """Bytes of `512M` (10^6) or `512Mi` (2^20), and so on. Raises `UsageError`."""
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < LEAST_BYTES:
        raise UsageError(f"--item-memory {text!r} is not a size such as 512M, 2G or 512Mi, of at least 16Mi")
    return size
