"""A namespace of a cluster: typed calls, repeated while the API server is busy or away.

Every call may be repeated: an object is created under a name that is known beforehand, and who creates one
must be ready to find it there. So calls are repeated when the server is busy or away (429, 5xx, a lost
connection), for as long as the patience lasts; nothing else is.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

import msgspec
import urllib3

from piecework_producer.kubernetes_answers import Call, error_of, warning_texts
from piecework_producer.kubernetes_api import JSON, Api, ClusterOptions, ForwardedPort, Query, Unreachable
from piecework_producer.kubernetes_errors import ClusterAway, ClusterError, NoCluster
from piecework_producer.kubernetes_objects import PODS, Manifest, Resource
from piecework_producer.kubernetes_streams import Lines, Watch

T = TypeVar("T")
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_WRITE: Query = [("fieldManager", "piecework"), ("fieldValidation", "Strict")]
WATCH_SECONDS = 240


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _List(msgspec.Struct, Generic[T], frozen=True, rename="camel"):
    metadata: _ListMeta = _ListMeta()
    items: list[T] | None = None


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    git_version: str


class Cluster:
    """A connection to one namespace of one cluster. Threads may share it."""

    def __init__(
        self,
        api: Api,
        options: ClusterOptions,
        *,
        warn: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`warn` gets what the API server says beside an answer that succeeds."""
        self.namespace, self.label = api.namespace, api.label
        self._api, self._options, self._warn, self._sleep, self._clock = api, options, warn, sleep, clock
        self._reached = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of idle connections."""
        self._api.close()

    # --- objects

    def create(self, resource: Resource[T], manifest: Manifest, *, dry_run: bool = False) -> T:
        """Make an object, refusing fields that the API does not know. Raises `AlreadyExists`, `Refused`, …"""
        query = _WRITE
        call = self._call("create", resource, _name(manifest))
        body = self._send("POST", resource.path(self.namespace), call, query + _dry(dry_run), manifest)
        return msgspec.json.decode(body, type=resource.type)

    def get(self, resource: Resource[T], name: str) -> T:
        """Read an object. Raises `NotFound`, …"""
        body = self._send("GET", resource.path(self.namespace, name), self._call("get", resource, name))
        return msgspec.json.decode(body, type=resource.type)

    def list(self, resource: Resource[T], *, label_selector: str = "", field_selector: str = "") -> tuple[list[T], str]:
        """All objects that the selectors select, and the resourceVersion to watch from."""
        query = _selectors(label_selector, field_selector)
        body = self._send("GET", resource.path(self.namespace), self._call("list", resource), query)
        found = msgspec.json.decode(body, type=_List[resource.type])  # type: ignore[name-defined]
        return cast("list[T]", found.items or []), found.metadata.resource_version

    def patch(self, resource: Resource[T], name: str, body: Manifest, *, dry_run: bool = False) -> T:
        """Merge a patch into an object (RFC 7386). Raises `NotFound`, `Conflict` if its resourceVersion
        differs.
        """
        query = _WRITE + _dry(dry_run)
        call = self._call("patch", resource, name)
        answer = self._send("PATCH", resource.path(self.namespace, name), call, query, body, content_type=_MERGE)
        return msgspec.json.decode(answer, type=resource.type)

    def apply(self, resource: Resource[T], manifest: Manifest, *, dry_run: bool = False) -> T:
        """Create or update an object by server-side apply; takes over fields that others have set."""
        query = [*_WRITE, ("force", "true")]
        name = _name(manifest)
        call = self._call("patch", resource, name)
        path = resource.path(self.namespace, name)
        answer = self._send("PATCH", path, call, query + _dry(dry_run), manifest, content_type=_APPLY)
        return msgspec.json.decode(answer, type=resource.type)

    def delete(self, resource: Resource[T], name: str, *, uid: str = "", foreground: bool = True) -> None:
        """Delete an object; it goes when what it owns has gone, or at once and what it owns later.

        With `uid`, only that very object. Raises `NotFound`, and `Conflict` if the uid is another.
        """
        body: Manifest = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        call = self._call("delete", resource, name)
        self._send("DELETE", resource.path(self.namespace, name), call, body=body)

    # --- streams

    def watch(
        self,
        resource: Resource[T],
        resource_version: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Watch[T]:
        """Changes since a resourceVersion, until the server ends the stream (minutes) or `close` is
        called.
        """
        query = [
            *_selectors(label_selector, field_selector),
            ("watch", "true"),
            ("resourceVersion", resource_version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_SECONDS)),
        ]
        call = self._call("watch", resource)
        return Watch(self._stream(resource.path(self.namespace), call, query), resource, call)

    def logs(
        self, pod: str, container: str, *, follow: bool = False, since: str = "", tail: int | None = None
    ) -> Lines:
        """A container's log, each line with its time before it. `since` is an RFC 3339 time.

        Raises `Refused` while the container has not started.
        """
        query = [("container", container), ("follow", str(follow).lower()), ("timestamps", "true")]
        query += [("sinceTime", since)] if since else []
        query += [("tailLines", str(tail))] if tail is not None else []
        call = Call("get", "pods/log", self.namespace, pod, self.label)
        return self._stream(PODS.path(self.namespace, pod, "log"), call, query)

    def port_forward(self, pod: str, port: int) -> ForwardedPort:
        """A connection to a port of a pod, through the API server. Raises `ClusterAway`; not repeated."""
        try:
            return self._api.port_forward(PODS.path(self.namespace, pod, "portforward"), port)
        except Unreachable as error:
            call = Call("create", "pods/portforward", self.namespace, pod, self.label)
            raise ClusterAway(f"cannot {call}: {error}. See that the pod runs and may be reached") from error

    def version(self) -> str:
        """The API server's version, as `v1.36.2`."""
        call = Call("get", "version", "", "", self.label)
        return msgspec.json.decode(self._send("GET", "/version", call), type=_Version).git_version

    # --- one request

    def _call(self, verb: str, resource: Resource[T], name: str = "") -> Call:
        return Call(verb, resource.full_name, self.namespace if resource.namespaced else "", name, self.label)

    def _send(
        self,
        method: str,
        path: str,
        call: Call,
        query: Query | None = None,
        body: Manifest | None = None,
        content_type: str = JSON,
    ) -> bytes:
        seconds = self._options.request_timeout_seconds

        def once() -> bytes:
            timeouts = (min(seconds, 10.0), seconds)
            try:
                response = self._api.open(method, path, query or [], body, content_type=content_type, timeouts=timeouts)
                data = self._checked(response, call)
            except (Unreachable, urllib3.exceptions.HTTPError, OSError) as error:
                raise self._unreached(error, call) from error
            for text in warning_texts(response.headers.get("Warning")):
                self._warn(text)
            return data

        return self._patiently(once)

    def _stream(self, path: str, call: Call, query: Query) -> Lines:
        def once() -> Lines:
            try:
                response = self._api.open("GET", path, query, timeouts=(10.0, WATCH_SECONDS + 30.0))
                if not 200 <= response.status < 300:
                    self._checked(response, call)
            except (Unreachable, urllib3.exceptions.HTTPError, OSError) as error:
                raise self._unreached(error, call) from error
            self._reached = True
            return Lines(response, call)

        return self._patiently(once)

    def _checked(self, response: urllib3.BaseHTTPResponse, call: Call) -> bytes:
        """The answer's body; raises for any status but 2xx."""
        data = bytes(response.data)
        self._reached = True
        if not 200 <= response.status < 300:
            raise _Answered(error_of(response.status, data, call), response.headers.get("Retry-After"))
        return data

    def _unreached(self, error: Exception, call: Call) -> ClusterError:
        problem = f"cannot {call}: {self.label} cannot be reached ({error})"
        hung_up = isinstance(error.__cause__, urllib3.exceptions.ProtocolError)  # somebody is there
        if self._reached or hung_up:
            return ClusterAway(f"{problem}. Try again when it is back")
        return NoCluster(f"{problem}. See that the cluster runs, or choose another --context")

    def _patiently(self, once: Callable[[], T]) -> T:
        """`once` until it answers; gives up when the patience is over, or at once if waiting cannot help."""
        begun, pause = self._clock(), 0.1
        while True:
            retry_after = None
            try:
                return once()
            except _Answered as answered:
                failure, retry_after = answered.error, answered.retry_after
            except ClusterAway as away:
                failure = away
            if not isinstance(failure, ClusterAway):
                raise failure
            left = begun + self._options.patience_seconds - self._clock()
            wait = max(pause, float(retry_after) if retry_after and retry_after.isdigit() else 0.0)
            if wait > left:
                raise failure
            self._sleep(wait)
            pause = min(2 * pause, 5.0)


class _Answered(Exception):
    """An answer other than 2xx, on its way to `_patiently`."""

    def __init__(self, error: ClusterError, retry_after: str | None) -> None:
        super().__init__(str(error))
        self.error, self.retry_after = error, retry_after


def _name(manifest: Manifest) -> str:
    metadata = manifest.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _dry(dry_run: bool) -> Query:
    return [("dryRun", "All")] if dry_run else []


def _selectors(label_selector: str, field_selector: str) -> Query:
    pairs = [("labelSelector", label_selector), ("fieldSelector", field_selector)]
    return [(name, value) for name, value in pairs if value]


def connect(options: ClusterOptions, warn: Callable[[str], None] = lambda _: None) -> Cluster:
    """The cluster that the options name; sends nothing yet. Raises `NoCluster`."""
    return Cluster(Api(options), options, warn=warn)
