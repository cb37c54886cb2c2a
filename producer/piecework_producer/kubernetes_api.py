"""The one module that imports the Kubernetes client: configuration, credentials, TLS, one request,
port-forward.

Nothing is repeated and nothing is read into structs here; `kubernetes_cluster` does both. Importing this
module costs about a second: import it, and what imports it, only where a cluster is asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.stream import ws_client

from piecework_producer.kubernetes_errors import NoCluster
from piecework_producer.kubernetes_objects import Manifest

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
JSON = "application/json"
Query = list[tuple[str, str]]


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster and how patient; as kubectl's options of the same names."""

    context: str | None = None
    """None: the kubeconfig's current context; without a kubeconfig, the cluster that this pod runs in."""
    namespace: str | None = None
    """None: the context's namespace, or the pod's own, or `default`."""
    kubeconfig: Path | None = None
    """None: $KUBECONFIG, or ~/.kube/config."""
    request_timeout_seconds: float = 30.0
    patience_seconds: float = 30.0
    """How long a call is repeated while the API server is busy or away. 0: never."""


class Unreachable(Exception):
    """No answer: no connection, no credentials, no TLS, or none in time."""


class Api:
    """Sends requests to one API server, with the credentials of one context. Threads may share it."""

    def __init__(self, options: ClusterOptions) -> None:
        """Reads the configuration as kubectl does; opens no connection. Raises `NoCluster`."""
        configuration: Any = type.__call__(client.Configuration)
        namespace, label = _configure(configuration, options)
        configuration.retries = False
        configuration.keep_alive = True  # or a watch would not notice that the server has gone
        configuration.connection_pool_maxsize = 16
        self._client: Any = client.ApiClient(configuration)
        self._client.user_agent = "piecework"
        self.namespace = options.namespace or namespace
        self.label = f"{label} ({configuration.host})"

    def open(
        self,
        method: str,
        path: str,
        query: Query,
        body: Manifest | None = None,
        *,
        content_type: str = JSON,
        timeouts: tuple[float, float] = (10.0, 30.0),
    ) -> urllib3.BaseHTTPResponse:
        """One request, one answer of any status, its body not read yet. `timeouts`: connecting, each read;
        seconds.

        Raises `Unreachable`.
        """
        headers = {"Accept": JSON} | ({} if body is None else {"Content-Type": content_type})
        try:
            request = self._client.param_serialize(
                method, path, None, list(query), headers, body, auth_settings=["BearerToken"]
            )
            answer: urllib3.BaseHTTPResponse = self._client.call_api(*request, _request_timeout=timeouts).response
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            raise Unreachable(brief(error)) from error
        return answer

    def port_forward(self, path: str, port: int) -> "ForwardedPort":
        """Connect to a port of the pod whose `portforward` is at `path`. Raises `Unreachable`."""
        query = [("ports", str(port))]
        request = self._client.param_serialize("GET", path, None, query, {}, auth_settings=["BearerToken"])
        headers = {**request[2], "sec-websocket-protocol": "v4.channel.k8s.io"}
        try:
            forward: Any = ws_client.portforward_call(  # type: ignore[no-untyped-call]
                self._client.configuration, "GET", request[1], headers=headers, query_params=query
            )
        except client.ApiException as error:
            raise Unreachable(brief(error)) from error
        return ForwardedPort(forward, port)

    def close(self) -> None:
        """Let go of idle connections."""
        self._client.close()


class ForwardedPort:
    """One connection to a pod's port: bytes in, bytes out."""

    def __init__(self, forward: Any, port: int) -> None:
        self._forward, self._port = forward, port
        self._socket: Any = forward.socket(port)

    def fileno(self) -> int:
        """For select; -1 when closed."""
        return int(self._socket.fileno())

    def receive(self) -> bytes:
        """What has come; b"" at the end."""
        return bytes(self._socket.recv(65536))

    def send(self, data: bytes) -> None:
        """Pass on all of it."""
        self._socket.sendall(data)

    @property
    def error(self) -> str:
        """What the node said went wrong, "" if nothing."""
        return str(self._forward.error(self._port) or "")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _configure(configuration: Any, options: ClusterOptions) -> tuple[str, str]:
    """Fill the client's configuration; returns the default namespace and what the cluster is called."""
    file = str(options.kubeconfig) if options.kubeconfig else config.KUBE_CONFIG_DEFAULT_LOCATION
    found = any(Path(part).expanduser().is_file() for part in file.split(":") if part)
    if not found and options.kubeconfig is None and options.context is None:
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise NoCluster(
                f"no cluster: there is no kubeconfig at {file}, and this is not a pod ({error}). "
                "Name one with KUBECONFIG or --kubeconfig, or run without a cluster: piecework run"
            ) from None
        namespace = _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.is_file() else ""
        return namespace or "default", "this pod's cluster"
    if not found:
        raise NoCluster(f"no cluster: there is no kubeconfig at {file}. Name another with --kubeconfig")
    names: list[str] = []
    try:
        contexts, current = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
        names = [str(each["name"]) for each in contexts]
        chosen = next((each for each in contexts if each["name"] == options.context), None)
        chosen = current if options.context is None else chosen
        if chosen is None:
            raise config.ConfigException(f"there is no context {options.context}")
        config.load_kube_config(file, options.context, configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, yaml.YAMLError, KeyError, TypeError, OSError) as error:
        known = f" It has the contexts {', '.join(names)}." if names else ""
        raise NoCluster(
            f"no cluster: the kubeconfig {file} cannot be used: {brief(error)}.{known} Choose one with --context"
        ) from error
    return str(chosen["context"].get("namespace") or "default"), f"context {chosen['name']}"


def brief(error: BaseException) -> str:
    """An error's text on one line, cut to 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
