"""Turns what an API server answers into errors that a person can act upon.

The texts that it looks for are those of a real control plane (see `tests/data/kubernetes-recordings`). What
it does not know it passes on in the server's own words.
"""

import re
from dataclasses import dataclass

import msgspec

from piecework_producer.kubernetes_errors import (
    AlreadyExists,
    ClusterAway,
    ClusterError,
    Conflict,
    Expired,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Refused,
)


class _Status(msgspec.Struct, frozen=True):
    """The API's Status object: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/"""

    message: str = ""
    reason: str = ""
    code: int = 0


@dataclass(frozen=True)
class Call:
    """What was asked of the API server, in the words of RBAC."""

    verb: str
    resource: str
    """As in the server's messages: `jobs.batch`, `pods/log`."""
    namespace: str
    name: str
    cluster: str
    """How to tell this cluster from others: context and address."""

    def __str__(self) -> str:
        what = f"{self.resource} {self.name}" if self.name else self.resource
        place = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{place}"


_CANNOT = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"')
_NO_NAMESPACE = re.compile(r'^namespaces "(?P<name>[^"]+)" not found$')


def error_of(status: int, body: bytes, call: Call) -> ClusterError:
    """The error for an answer with this HTTP status (or the code of a watch's ERROR event)."""
    answer = _read(body)
    said = answer.message or f"HTTP {status}"
    if status == 401:
        return NotPermitted(
            f"cannot {call}: {call.cluster} does not accept the credentials ({said}). "
            "Log in again, or choose another --context"
        )
    if status == 403:
        return _forbidden(said, call)
    if status == 404:
        missing = _NO_NAMESPACE.match(said)
        if missing:
            return NotFound(
                f"cannot {call}: there is no namespace {missing['name']} on {call.cluster}. "
                "Create it, or choose another with --namespace"
            )
        return NotFound(f"cannot {call}: {said} ({call.cluster})")
    if status == 409:
        kind = AlreadyExists if answer.reason == "AlreadyExists" else Conflict
        return kind(f"cannot {call}: {said}")
    if status == 410 or answer.reason == "Expired":
        return Expired(f"cannot {call}: {said}")
    if status == 429:
        return ClusterAway(f"cannot {call}: {call.cluster} has too much to do ({said}). Try again later")
    if status >= 500:
        return ClusterAway(f"cannot {call}: {call.cluster} answers {status} ({said}). Try again later")
    if status in (400, 422):
        return Refused(f"cannot {call}: {said}. Correct the option or the --patch that sets it")
    return ClusterError(f"cannot {call}: {call.cluster} answers {status} ({said})")


def _forbidden(said: str, call: Call) -> ClusterError:
    denied = _CANNOT.search(said)
    if denied:
        group = denied["group"] or "core"
        return NotPermitted(
            f"cannot {call}: {said}. Have a Role with the verb {denied['verb']} on the resource "
            f"{denied['resource']} (API group {group}) bound to that user"
        )
    if "exceeded quota" in said or "failed quota" in said:
        return QuotaExceeded(
            f"cannot {call}: {said}. Ask for less, delete what is finished, or have the ResourceQuota raised"
        )
    return Refused(f"cannot {call}: {said}. An admission rule of the cluster refuses it; change what it names")


def _read(body: bytes) -> _Status:
    try:
        return msgspec.json.decode(body, type=_Status)
    except msgspec.MsgspecError:
        # A proxy's answer, say, or "404 page not found": the first line has to do.
        line = body.decode(errors="replace").strip().partition("\n")[0]
        return _Status(message=line[:200])


def warning_texts(header: str | None) -> list[str]:
    """The texts of a `Warning` header, which the API server sends with answers that succeed (RFC 9111,
    5.5).
    """
    texts = re.findall(r'299 \S+ "((?:[^"\\]|\\.)*)"', header or "")
    return [re.sub(r"\\(.)", r"\1", text) for text in texts]
