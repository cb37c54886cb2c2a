"""Where the workers of a benchmark run: on this machine, or in a cluster. See `measurement.Place`."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from piecework_producer.cli.targets import place
from piecework_producer.launcher import Launcher, WorkerPlan
from piecework_producer.local_workers import local_launcher, logs_of
from piecework_producer.measurement import MeasurementFailed
from piecework_producer.run import Run
from piecework_producer.settings import RunSettings

if TYPE_CHECKING:
    from piecework_producer.kubernetes_cluster import Cluster
    from piecework_producer.kubernetes_settings import JobSettings


class OnThisMachine:
    """Worker processes."""

    def __init__(self, keep: bool) -> None:
        """`keep`: their output stays with their runs."""
        self.words = "processes of this machine"
        self._keep = keep

    @contextmanager
    def workers(self, run: Run, settings: RunSettings) -> Iterator[Launcher]:
        """If they failed their output stays too: it tells why."""
        keep = False
        try:
            with local_launcher(run, settings.worker_arguments(), settings.parallelism, settings.grace) as launcher:
                yield launcher
            keep = self._keep
        except MeasurementFailed:
            keep = True
            raise
        finally:
            if not keep:
                shutil.rmtree(logs_of(run), ignore_errors=True)


class OnKubernetes:
    """A Job for each run, deleted with its pods when the run was measured."""

    def __init__(self, cluster: "Cluster", job: "JobSettings", keep: bool) -> None:
        """`keep`: Jobs stay, until their time to live is over."""
        self._cluster, self._job, self._keep = cluster, job, keep
        self._options = job.job_options()
        requests = ", ".join(f"{name} {amount}" for name, amount in self._options.pod.requests.items())
        self.words = f"pods in namespace {cluster.namespace} of {cluster.label}; image {job.image}; requests {requests}"

    @contextmanager
    def workers(self, run: Run, settings: RunSettings) -> Iterator[Launcher]:
        """The run's Job, known to its ledger so that every verb finds it if this process dies."""
        from piecework_producer.kubernetes_code import pack
        from piecework_producer.kubernetes_job import job_manifest
        from piecework_producer.kubernetes_launcher import KubernetesLauncher

        plan = WorkerPlan(run.id, settings.worker_arguments(), settings.parallelism, settings.grace)
        code = pack(self._job.code, run.id) if self._job.code else None
        identity = f"{run.status().created_at:.3f}"
        run.ledger.note_place(place(self._cluster.namespace, self._job.context))
        launcher = KubernetesLauncher(
            self._cluster, run.id, job_manifest(plan, self._options, code, identity=identity), code
        )
        measured = False
        try:
            yield launcher
            measured = True
        finally:
            try:
                if not (measured and self._keep):
                    launcher.delete()
            finally:
                launcher.close()
