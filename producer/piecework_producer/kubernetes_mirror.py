"""A copy, kept up to date by list and watch, of the objects that a selector selects.

A watch that ends or breaks is taken up from the last resourceVersion; one that has expired (410) begins
with a new list. The API server being away is no error here: the copy stays as it was, `away_seconds` grows,
and the thread goes on trying, with a growing pause. What trying again cannot mend (no permission, no
cluster at all) ends the thread and is raised by `check`. The client's own informer is not used: it tries
again without a pause and logs every failure.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_errors import ClusterAway, ClusterError, Expired
from piecework_producer.kubernetes_objects import Meta, Resource
from piecework_producer.kubernetes_streams import Watch


class HasMeta(Protocol):
    """Any object of the API."""

    @property
    def metadata(self) -> Meta: ...


T = TypeVar("T", bound=HasMeta)
_FIRST_PAUSE, _MOST_PAUSE = 0.1, 10.0


class News:
    """Lets a thread wait until any of several mirrors has changed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0
        """Grows with each change."""

    def tell(self) -> None:
        """Something has changed."""
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout_seconds: float) -> int:
        """Until `count` differs from `seen`, for so long at most; returns the count."""
        with self._changed:
            self._changed.wait_for(lambda: self.count != seen, max(0.0, timeout_seconds))
            return self.count


class Mirror(Generic[T]):
    """See the module. A thread keeps it; `close` ends it."""

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource[T],
        news: News,
        *,
        label_selector: str = "",
        field_selector: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._resource, self._news, self._clock = cluster, resource, news, clock
        self._labels, self._fields = label_selector, field_selector
        self._lock = threading.Lock()
        self._objects: dict[str, T] = {}
        self._watch: Watch[T] | None = None
        self._closing = threading.Event()
        self._error: ClusterError | None = None
        self._away_since: float | None = None
        self.ready = False
        """Whether the first list has come."""
        self._thread = threading.Thread(target=self._keep, name=f"mirror of {resource.plural}", daemon=True)
        self._thread.start()

    def objects(self) -> list[T]:
        """The copy, by name."""
        with self._lock:
            return [self._objects[name] for name in sorted(self._objects)]

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._error is not None:
            raise self._error

    @property
    def away_seconds(self) -> float:
        """For how long the copy could not be kept up to date; 0.0 if it is."""
        since = self._away_since
        return 0.0 if since is None else self._clock() - since

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._closing.set()
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.close()
        self._thread.join(timeout=1.0)  # it may be within a call, and is a daemon

    def _keep(self) -> None:
        version, pause = "", _FIRST_PAUSE
        while not self._closing.is_set():
            try:
                version = self._follow(version) if version else self._list()
                pause = _FIRST_PAUSE
                continue
            except Expired:
                version = ""
            except ClusterAway:
                if self._away_since is None:
                    self._away_since = self._clock()
            except _Broken as broken:
                # Changes came before it broke: it is not the server that fails.
                version, pause = broken.version, _FIRST_PAUSE if broken.lived else pause
            except ClusterError as error:
                self._error = error
                self._news.tell()
                return
            self._closing.wait(pause)
            pause = min(2 * pause, _MOST_PAUSE)

    def _list(self) -> str:
        objects, version = self._cluster.list(self._resource, label_selector=self._labels, field_selector=self._fields)
        with self._lock:
            self._objects = {each.metadata.name: each for each in objects}
            self.ready = True
        self._away_since = None
        self._news.tell()
        return version

    def _follow(self, version: str) -> str:
        """Take in changes until the server ends the watch. Raises `Expired`, `_Broken`, `ClusterError`."""
        watch = self._cluster.watch(self._resource, version, label_selector=self._labels, field_selector=self._fields)
        with self._lock:
            self._watch = watch
        if self._closing.is_set():  # `close` may have come before it was there to be closed
            watch.close()
        self._away_since = None
        lived = False
        try:
            for change in watch:
                lived, version = True, change.resource_version
                if change.object is not None:
                    self._take(change.type == "DELETED", change.object)
        except ClusterAway as error:
            raise _Broken(version, lived) from error
        finally:
            watch.close()
        return version

    def _take(self, deleted: bool, changed: T) -> None:
        with self._lock:
            if deleted:
                self._objects.pop(changed.metadata.name, None)
            else:
                self._objects[changed.metadata.name] = changed
        self._news.tell()


class _Broken(Exception):
    """The watch broke after this resourceVersion; whether any change had come."""

    def __init__(self, version: str, lived: bool) -> None:
        super().__init__(version)
        self.version, self.lived = version, lived
