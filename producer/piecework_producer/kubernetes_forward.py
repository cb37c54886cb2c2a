"""`k8s://SERVICE.NAMESPACE:PORT`: a Redis that is reachable only inside the cluster, through a port-forward.

The forward is a Unix socket in a directory of its own that nobody else may enter. Each connection to it
becomes one to a ready pod of the Service, chosen anew, so that it outlives pods and broken connections: the
Redis client connects again, and that is all. A process that is killed leaves the empty socket's directory
behind.
"""

import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

from piecework.errors import UsageError
from piecework_producer.kubernetes_api import ForwardedPort
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_errors import ClusterError, NotFound
from piecework_producer.kubernetes_objects import PODS, SERVICES, Pod

SCHEME = "k8s"


@dataclass(frozen=True)
class ServiceUrl:
    """A `k8s://` URL, taken apart."""

    service: str
    namespace: str | None
    """None: the cluster connection's own."""
    port: int
    user: str = ""
    password: str = ""
    database: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """From `k8s://[[USER]:PASSWORD@]SERVICE[.NAMESPACE][:PORT][/DB]`. Messages hold no password."""
        parts = urlsplit(url)
        service, _, namespace = (parts.hostname or "").partition(".")
        namespace = namespace.removesuffix(".svc.cluster.local").removesuffix(".svc")
        try:
            port = parts.port or 6379
        except ValueError:
            port = 0
        database = parts.path.strip("/")
        plain = not parts.query and (not database or database.isdigit()) and "." not in namespace
        if parts.scheme != SCHEME or not service or not port or not plain:
            raise UsageError(
                "the Redis URL is not k8s://[[USER]:PASSWORD@]SERVICE[.NAMESPACE][:PORT][/DB]: "
                "name a Service of the cluster, without options"
            )
        return cls(service, namespace or None, port, parts.username or "", parts.password or "", database)

    def inside(self, namespace: str) -> str:
        """The URL that pods use for the same server, with user and password if the URL has them."""
        userinfo = f"{self.user}:{self.password}@" if self.password else ""
        host = f"{self.service}.{self.namespace or namespace}.svc"
        return f"redis://{userinfo}{host}:{self.port}/{self.database or 0}"


class PortForward:
    """Forwards a Unix socket to a Service until it is closed."""

    def __init__(self, cluster: Cluster, url: ServiceUrl, say: Callable[[str], None] = lambda _: None) -> None:
        """Raises `NotFound` and so on at once if there is nothing to forward to. `say` gets later troubles.

        `cluster` must be a connection to the Service's namespace.
        """
        self._cluster, self._target, self._say = cluster, url, say
        self._pod()
        self._directory = Path(tempfile.mkdtemp(prefix="piecework-forward-"))
        self._path = self._directory / "redis.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(16)
        self._closing = threading.Event()
        threading.Thread(target=self._accept, name="port-forward", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def redis_url(self) -> str:
        """What a Redis client connects to; user and password as in the URL given."""
        target = self._target
        userinfo = f"{target.user}:{target.password}@" if target.user or target.password else ""
        return f"unix://{userinfo}{quote(str(self._path))}?{urlencode({'db': target.database or '0'})}"

    def close(self) -> None:
        """End it, with all connections; may be called twice."""
        self._closing.set()
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                readable, _, _ = select.select([self._listener], [], [], 0.5)
                if not readable:
                    continue
                client, _ = self._listener.accept()
            except (OSError, ValueError):
                return
            threading.Thread(target=self._serve, args=(client,), name="forwarded", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                pod, port = self._pod()
                remote = self._cluster.port_forward(pod, port)
            except ClusterError as error:
                self._say(str(error))
                return  # the client sees a connection that ends, and tries again
            try:
                self._pump(client, remote)
            except OSError:
                return
            finally:
                if remote.error:
                    self._say(f"port-forward to pod {pod}: {remote.error.strip()}")
                remote.close()

    def _pump(self, client: socket.socket, remote: ForwardedPort) -> None:
        both: list[socket.socket | ForwardedPort] = [client, remote]
        while not self._closing.is_set():
            readable, _, _ = select.select(both, [], [], 0.5)
            if client in readable:
                data = client.recv(65536)
                if not data:
                    return
                remote.send(data)
            if remote in readable:
                data = remote.receive()
                if not data:
                    return
                client.sendall(data)

    def _pod(self) -> tuple[str, int]:
        """A ready pod of the Service, and the pod's port."""
        service = self._cluster.get(SERVICES, self._target.service)
        ports = {each.port: each.target_port for each in service.spec.ports or ()}
        if self._target.port not in ports:
            known = ", ".join(str(port) for port in ports) or "none"
            raise NotFound(
                f"the Service {self._target.service} has no port {self._target.port}; it has {known}: correct the URL"
            )
        target = ports[self._target.port] or self._target.port
        selector = ",".join(f"{key}={value}" for key, value in (service.spec.selector or {}).items())
        pods = self._cluster.list(PODS, label_selector=selector)[0] if selector else []
        for pod in pods:
            ready = pod.condition("Ready")
            if pod.metadata.deletion_timestamp is None and ready is not None and ready.status == "True":
                return pod.metadata.name, _number(pod, target)
        raise NotFound(
            f"the Service {self._target.service} in namespace {self._cluster.namespace} has no ready pod: "
            "see that Redis runs there"
        )


def _number(pod: Pod, port: int | str) -> int:
    """A target port may be the name of a container's port."""
    if isinstance(port, int):
        return port
    for container in pod.spec.containers:
        for each in container.ports or ():
            if each.name == port:
                return each.container_port
    raise NotFound(f"pod {pod.metadata.name} has no port called {port}: correct the Service's targetPort")
