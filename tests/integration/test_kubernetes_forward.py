"""`k8s://` URLs: a real Redis behind the mock's port-forward."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from piecework.errors import UsageError
from piecework.server import connect as connect_redis
from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_errors import NotFound
from piecework_producer.kubernetes_forward import PortForward, ServiceUrl
from tests.kubernetes_mock import KubernetesMock
from tests.server_fixture import ServerProcess, eventually


@pytest.fixture
def mock(shared_server: ServerProcess) -> Iterator[KubernetesMock]:
    with KubernetesMock() as server:
        server.ports[6379] = (str(shared_server.socket), 0)
        server.put(
            "services",
            {
                "metadata": {"name": "redis"},
                "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379, "targetPort": "redis"}]},
            },
        )
        pod(server, "redis-0")
        yield server


def pod(mock: KubernetesMock, name: str, ready: str = "True") -> None:
    mock.put(
        "pods",
        {
            "metadata": {"name": name, "labels": {"app": "redis"}},
            "spec": {"containers": [{"name": "r", "ports": [{"name": "redis", "containerPort": 6379}]}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        },
    )


@pytest.fixture
def cluster(mock: KubernetesMock, tmp_path: Path) -> Iterator[Cluster]:
    with connect(ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path))) as connection:
        yield connection


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("k8s://redis", ServiceUrl("redis", None, 6379)),
        ("k8s://redis.cache:7000/2", ServiceUrl("redis", "cache", 7000, database="2")),
        ("k8s://redis.cache.svc.cluster.local", ServiceUrl("redis", "cache", 6379)),
        ("k8s://u:p%40w@redis.cache", ServiceUrl("redis", "cache", 6379, "u", "p%40w")),
    ],
)
def test_urls(url: str, expected: ServiceUrl) -> None:
    assert ServiceUrl.parse(url) == expected


@pytest.mark.parametrize(
    "url", ["redis://redis", "k8s://", "k8s://a:x", "k8s://a.b.c", "k8s://a/x", "k8s://:secret@a?x=1"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        ServiceUrl.parse(url)
    assert "secret" not in str(caught.value)


def test_the_url_inside_the_cluster() -> None:
    assert ServiceUrl.parse("k8s://redis").inside("batch") == "redis://redis.batch.svc:6379/0"
    assert ServiceUrl.parse("k8s://:p@redis.a:1/2").inside("batch") == "redis://:p@redis.a.svc:1/2"


def test_redis_through_the_forward(cluster: Cluster) -> None:
    with PortForward(cluster, ServiceUrl.parse("k8s://redis.rec")) as forward:
        client = connect_redis(forward.redis_url)
        assert client.ping()
        client.set("forwarded", b"x" * 1_000_000)
        assert client.get("forwarded") == b"x" * 1_000_000
        client.delete("forwarded")
        directory = Path(forward.redis_url.removeprefix("unix://").partition("?")[0]).parent
        assert directory.stat().st_mode & 0o077 == 0, "for nobody else"
        client.close()
    assert not directory.exists()
    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_the_forward_outlives_pods(mock: KubernetesMock, cluster: Cluster) -> None:
    said: list[str] = []
    with PortForward(cluster, ServiceUrl.parse("k8s://redis"), said.append) as forward:
        client = connect_redis(forward.redis_url)
        assert client.ping()
        mock.remove("pods", "redis-0")
        client.connection_pool.disconnect()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        assert "has no ready pod" in said[0]
        pod(mock, "redis-1")
        assert eventually(client.ping)
        client.close()


def test_nothing_to_forward_to(mock: KubernetesMock, cluster: Cluster) -> None:
    with pytest.raises(NotFound, match='"none" not found'):
        PortForward(cluster, ServiceUrl.parse("k8s://none"))
    with pytest.raises(NotFound, match="has no port 1; it has 6379"):
        PortForward(cluster, ServiceUrl.parse("k8s://redis:1"))
    pod(mock, "redis-0", ready="False")
    with pytest.raises(NotFound, match="no ready pod"):
        PortForward(cluster, ServiceUrl.parse("k8s://redis"))


def test_trouble_in_the_pod_is_told(mock: KubernetesMock, cluster: Cluster) -> None:
    mock.ports.clear()
    said: list[str] = []
    with PortForward(cluster, ServiceUrl.parse("k8s://redis"), said.append) as forward:
        client = connect_redis(forward.redis_url)
        with pytest.raises(redis.ConnectionError):
            client.ping()
        assert "no such port in the pod" in eventually(lambda: " ".join(said))
        client.close()
