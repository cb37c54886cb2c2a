"""What a verb is about: a run on a server, its Job in a cluster, or both; a fixed-count Job has no ledger.

Where a run's workers are is kept in its ledger, so that the verbs need not be told again; `--on kubernetes` is for
fixed-count Jobs, and for who has no Redis at hand.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from piecework.damage import reading
from piecework.errors import UnknownRun, UsageError
from piecework_producer.cli.errors import say
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import ClusterSettings, ServerSettings, read

if TYPE_CHECKING:
    from piecework_producer.kubernetes_launcher import KubernetesLauncher


@dataclass(frozen=True)
class Target:
    """At least one of the two is there."""

    name: str
    run: Run | None
    """None: a Job without a ledger."""
    job: "KubernetesLauncher | None"
    """None: the run's workers are not on Kubernetes."""

    def known_run(self) -> Run:
        """The run. Raises `UnknownRun` for a Job without a ledger."""
        if self.run is None:
            raise UnknownRun(f"{self.name} has no ledger: it is a Job of a fixed count, or --redis is not given")
        return self.run

    def known_job(self) -> "KubernetesLauncher":
        """The launcher of its Job. Raises `UsageError` for a local run."""
        if self.job is None:
            raise UsageError(f"run {self.name} is not on Kubernetes; if it is, say --on kubernetes --namespace NAME")
        return self.job


@contextmanager
def open_session(settings: ServerSettings, patience: float = 60.0) -> Iterator[Session]:
    """The server that the settings name; a k8s:// URL is reached through a port-forward for the block."""
    url = settings.redis_url
    if url is None or not url.startswith("k8s://"):
        with Session(url, settings.state_dir, patience, say) as session:
            yield session
        return
    from piecework_producer.kubernetes_cluster import connect
    from piecework_producer.kubernetes_forward import PortForward, ServiceUrl
    from piecework_producer.kubernetes_settings import cluster_options

    target = ServiceUrl.parse(url)
    chosen = settings if isinstance(settings, ClusterSettings) else read(ClusterSettings, {})
    chosen = chosen.model_copy(update={"namespace": target.namespace or chosen.namespace})
    with (
        connect(cluster_options(chosen), say) as connection,
        PortForward(connection, target, say) as forward,
        Session(forward.redis_url, settings.state_dir, patience, say) as session,
    ):
        yield session


def session_for(redis: str | None, state_dir: Path | None) -> AbstractContextManager[Session]:
    """The server that the options and the environment name."""
    return open_session(read(ServerSettings, {"redis": redis, "state_dir": state_dir}))


def refuse_embedded(settings: ServerSettings) -> None:
    """Raise `UsageError` if no server is named: pods cannot reach the embedded one."""
    if settings.redis is None:
        raise UsageError(
            "--redis is missing: pods cannot reach the embedded server. Give the URL of one that they reach too; "
            "k8s://SERVICE.NAMESPACE:6379 goes through a port-forward"
        )


class Place(msgspec.Struct, frozen=True):
    """Where a run's workers are, as the ledger keeps it."""

    on: str = "local"
    namespace: str | None = None
    context: str | None = None


def place(namespace: str, context: str | None) -> str:
    """What the ledger keeps about where a run's workers are."""
    return msgspec.json.encode(Place("kubernetes", namespace, context)).decode()


def _place_of(run: Run | None) -> Place:
    if run is None:
        return Place()
    with reading(f"run {run.id}, its place"):
        return msgspec.json.decode(run.ledger.place() or "{}", type=Place)


@contextmanager
def open_target(name: str, settings: ClusterSettings) -> Iterator[Target]:
    """The run and its Job, as far as there are any. Raises `UnknownRun` if nothing of the name is to be found."""
    on_cluster = settings.on == "kubernetes"
    if on_cluster and settings.redis is None:
        with _job(name, settings, Place()) as job:
            yield Target(name, None, job)
        return
    with open_session(settings) as session:
        try:
            run = Run(session, name)
        except UnknownRun:
            if not on_cluster:
                raise UnknownRun(
                    f"run {name} is not on this server; `piecework status` lists the runs that are. "
                    "A Job of a fixed count is found with --on kubernetes"
                ) from None
            run = None
        stored = _place_of(run)
        if not on_cluster and (settings.on == "local" or stored.on != "kubernetes"):
            yield Target(name, run, None)
            return
        with _job(name, settings, stored) as job:
            yield Target(name, run, job)


@contextmanager
def _job(name: str, settings: ClusterSettings, stored: Place) -> Iterator["KubernetesLauncher"]:
    from piecework_producer.kubernetes_cluster import connect
    from piecework_producer.kubernetes_launcher import KubernetesLauncher
    from piecework_producer.kubernetes_settings import cluster_options

    with connect(cluster_options(settings, stored.namespace, stored.context), say) as cluster:
        launcher = KubernetesLauncher(cluster, name)
        try:
            yield launcher
        finally:
            launcher.close()
