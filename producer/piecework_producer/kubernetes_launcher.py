"""The launcher for a cluster: one Job for a run, made once, watched, scaled, suspended, deleted.

The Job's name follows from the run's id, so that whoever launches finds the Job that is there. A crash at
any line leaves a ConfigMap without an owner at most, and a Job that the same command takes over. A Job that
does not carry piecework's labels and this run's id and identity is never changed; each change that could
hit another Job of the same name goes by the uid of the one that was read.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_code import CodeBundle
from piecework_producer.kubernetes_errors import (
    AlreadyExists,
    ClusterAway,
    Conflict,
    ForeignJob,
    JobDiffers,
    NotFound,
    Refused,
)
from piecework_producer.kubernetes_job import backoff_limit
from piecework_producer.kubernetes_objects import CONFIG_MAPS, JOBS, Job, Manifest, part
from piecework_producer.kubernetes_watcher import JobWatcher, newest
from piecework_producer.launcher import Launch

T = TypeVar("T")
_GONE_SECONDS = 120.0
"""How long to wait for a Job that is being deleted; pods get their grace first."""


class KubernetesLauncher:
    """See `piecework_producer.launcher.Launcher`; `suspend`, `resume` and `delete` come on top."""

    def __init__(
        self,
        cluster: Cluster,
        run: str,
        manifest: Manifest | None = None,
        code: CodeBundle | None = None,
        *,
        replace: bool = False,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`manifest` is from `job_manifest` or `fixed_job_manifest`; without it, only a Job that is there is
        used. `replace`: a Job of this run that was made with other settings is deleted, and no error.
        """
        self.cluster, self.run = cluster, run
        self._manifest, self._code, self._replace = manifest, code, replace
        self._sleep, self._clock = sleep, clock
        self._watcher = JobWatcher(cluster, run, clock=clock)

    # --- as every launcher

    def launch(self) -> None:
        """Create the Job, or take over the one that is there; one that has finished is replaced.

        The caller knows that the run is not over: a finished Job has then ended too early. Safe to repeat.
        Raises `ForeignJob`, `JobDiffers`, and whatever the cluster refuses.
        """
        if self._manifest is None:
            raise ValueError("a launcher without a manifest cannot launch")
        if self._code is not None:
            self._create_code(self._code)
        deadline = self._clock() + _GONE_SECONDS
        while True:
            try:
                job = self.cluster.create(JOBS, self._manifest)
                break
            except AlreadyExists:
                adopted = self._adopt(self._manifest, deadline)
            if adopted is not None:
                job = adopted
                break
        if self._code is not None:
            self._own_code(self._code, job)
        self._watcher.close()  # what it has seen may be from before

    def poll(self, timeout_seconds: float) -> Launch:
        """Wait for news from the watches, then tell. Raises what no waiting can mend, `NotPermitted` say."""
        return self._watcher.poll(timeout_seconds)

    def scale(self, parallelism: int) -> None:
        """Change the Job's parallelism; its backoffLimit grows with it, and never shrinks."""
        if parallelism < 1:
            raise ValueError("parallelism must be 1 or more; `suspend` stops all workers")
        job = self.job()
        spec: Manifest = {"parallelism": parallelism}
        if job.spec.completions is None and backoff_limit(parallelism) > job.spec.backoff_limit:
            spec["backoffLimit"] = backoff_limit(parallelism)
        self._change(job, {"spec": spec})

    def stop(self) -> None:
        """Suspend the Job: its pods get SIGTERM and hand back, and none is replaced. No error if it is
        gone.
        """
        try:
            self.suspend()
        except NotFound:
            return

    def close(self) -> None:
        """End the watches; the Job goes on."""
        self._watcher.close()

    # --- what only a Job has

    def job(self) -> Job:
        """The run's Job as it is. Raises `NotFound`."""
        found, _ = self.cluster.list(JOBS, label_selector=names.run_selector(self.run))
        job = newest(found)
        if job is None:
            raise NotFound(
                f"run {self.run} has no Job in namespace {self.cluster.namespace} of {self.cluster.label}. "
                "Choose another --namespace or --context, or submit the run again"
            )
        # One that is on its way out may share the stage with its successor only across names; prefer the
        # living.
        return min(found, key=lambda job: (job.metadata.deletion_timestamp is not None, job.metadata.name))

    def suspend(self) -> None:
        """Have the pods end (SIGTERM) until `resume`. Raises `NotFound`."""
        self._suspend(True)

    def resume(self) -> None:
        """Have pods again. A Job in a Kueue queue is started by Kueue, which may have to wait."""
        self._suspend(False)

    def delete(self, timeout_seconds: float = _GONE_SECONDS) -> bool:
        """Delete the Job, its pods and its code; wait until they are gone. False if there was nothing.

        Raises `ClusterAway` if they are not gone in time: they still go. Safe to repeat.
        """
        deadline = self._clock() + timeout_seconds
        try:
            job = self.job()
        except NotFound:
            return self._delete_code()
        self._delete(job)
        self._wait_until_gone(job, deadline)
        self._delete_code()
        return True

    def _suspend(self, suspend: bool) -> None:
        job = self.job()
        if job.spec.suspend != suspend and not job.finished:
            self._change(job, {"spec": {"suspend": suspend}})

    def _change(self, job: Job, patch: Manifest) -> Job:
        """Patch that very Job: a uid cannot be changed, so that a patch with another one is refused."""
        guarded: Manifest = patch | {"metadata": {"uid": job.metadata.uid}}
        try:
            return self.cluster.patch(JOBS, job.metadata.name, guarded)
        except Refused as refused:
            if "metadata.uid" not in str(refused):
                raise
            raise Conflict(f"the Job of run {self.run} was replaced by another meanwhile; try again") from None

    # --- launching

    def _adopt(self, manifest: Manifest, deadline: float) -> Job | None:
        """The Job that has the name already, if it is this run's; None: it has gone, create it now."""
        mine = part(manifest, "metadata")
        name = str(mine["name"])
        try:
            job = self.cluster.get(JOBS, name)
        except NotFound:
            return None
        leaving = job.metadata.deletion_timestamp is not None
        if not (leaving and job.metadata.label(names.RUN) == self.run):
            self._refuse_foreign(job)
        if leaving:
            self._wait_until_gone(job, deadline)
            return None
        same = job.metadata.annotation(names.FINGERPRINT) == part(mine, "annotations").get(names.FINGERPRINT)
        if job.finished or (self._replace and not same):
            self._delete(job)
            self._wait_until_gone(job, deadline)
            return None
        if not same:
            raise JobDiffers(
                f"run {self.run} has a Job at work ({name}, namespace {self.cluster.namespace}) with other "
                f"settings "
                "than these: image, command, resources or code differ. Submit with the same settings to "
                "take it "
                "over, or with --replace to have a new Job; its workers hand back and nothing recorded is "
                "lost"
            )
        parallelism = part(manifest, "spec").get("parallelism")
        # Suspended or in a queue, its parallelism is somebody else's decision.
        free = not job.spec.suspend and not job.metadata.label(names.KUEUE_QUEUE)
        if isinstance(parallelism, int) and parallelism != job.spec.parallelism and free:
            self.scale(parallelism)
        return job

    def _refuse_foreign(self, job: Job) -> None:
        meta, name = job.metadata, job.metadata.name
        where = f"namespace {self.cluster.namespace} of {self.cluster.label}"
        if meta.label(names.MANAGED_BY) != names.PIECEWORK or not meta.label(names.RUN):
            raise ForeignJob(
                f"there is a Job {name} in {where} that piecework did not make; it was not touched. "
                "Use another --run ID or --namespace"
            )
        identity = part(self._manifest or {}, "metadata", "annotations").get(names.IDENTITY, "")
        theirs = meta.annotation(names.IDENTITY)
        if meta.label(names.RUN) != self.run or (identity and theirs and identity != theirs):
            raise ForeignJob(
                f"the Job {name} in {where} belongs to another run ({meta.label(names.RUN)}, opened at "
                f"{theirs or 'an unknown time'}); it was not touched. Use another --run ID, or delete that "
                f"Job"
            )

    # --- deleting

    def _delete(self, job: Job) -> None:
        try:
            self.cluster.delete(JOBS, job.metadata.name, uid=job.metadata.uid)
        except (NotFound, Conflict):
            return  # gone already, perhaps with a successor

    def _wait_until_gone(self, job: Job, deadline: float) -> None:
        pause = 0.05
        while True:
            try:
                if self.cluster.get(JOBS, job.metadata.name).metadata.uid != job.metadata.uid:
                    return
            except NotFound:
                return
            if self._clock() > deadline:
                raise ClusterAway(
                    f"Job {job.metadata.name} is being deleted, but is not gone yet: a pod takes its time, "
                    f"or its node "
                    "is lost. Try again later"
                )
            self._sleep(pause)
            pause = min(2 * pause, 2.0)

    # --- code

    def _create_code(self, code: CodeBundle) -> None:
        try:
            self.cluster.create(CONFIG_MAPS, code.manifest())
        except AlreadyExists:
            return  # its name says what is in it

    def _own_code(self, code: CodeBundle, job: Job) -> None:
        owner: Manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job.metadata.name,
            "uid": job.metadata.uid,
        }
        patch: Manifest = {"metadata": {"ownerReferences": [owner]}}
        try:
            self.cluster.patch(CONFIG_MAPS, code.name, patch)
        except NotFound:
            # It went with an earlier Job of the run, between being found and being taken over.
            self.cluster.create(CONFIG_MAPS, code.manifest())
            self.cluster.patch(CONFIG_MAPS, code.name, patch)

    def _delete_code(self) -> bool:
        """Delete what a Job that was never made, or is gone, has left."""
        left, _ = self.cluster.list(CONFIG_MAPS, label_selector=names.run_selector(self.run))
        for each in left:
            try:
                self.cluster.delete(CONFIG_MAPS, each.metadata.name, uid=each.metadata.uid)
            except (NotFound, Conflict):
                continue
        return bool(left)
