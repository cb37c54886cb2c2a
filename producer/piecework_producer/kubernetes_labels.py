"""Names, labels and annotations by which piecework finds its own objects, and knows them from everybody
else's.

`app.kubernetes.io/…` are the recommended labels; those under `piecework.dev/` are piecework's own. An object
without `managed-by: piecework` and the right run is never changed.
"""

from piecework import __version__
from piecework.errors import UsageError
from piecework.keys import checked_run_id

MANAGED_BY = "app.kubernetes.io/managed-by"
PIECEWORK = "piecework"
RUN = "piecework.dev/run"
"""Label: id of the run, on Jobs, their pods and their ConfigMap."""
SCHEDULE = "piecework.dev/schedule"
"""Label: name of the schedule, on CronJobs, the producer's Jobs, and the runs' Jobs."""
FINGERPRINT = "piecework.dev/fingerprint"
"""Annotation: digest of what the Job was created with, to tell the same submission from another."""
IDENTITY = "piecework.dev/run-created"
"""Annotation: when the ledger opened the run; tells it from an earlier one of the same id, or on another
server.
"""
RECORDED = "piecework.dev/last-recorded-time"
"""Annotation of a CronJob: the last scheduled time whose run was submitted."""
SCHEDULED_TIME = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""Annotation that the CronJob controller puts on a Job."""
JOB_NAME = "batch.kubernetes.io/job-name"
"""Label that the Job controller puts on pods."""
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"


def job_name(run: str) -> str:
    """Name of the run's Job: the same for every submission, so that there is one."""
    return f"piecework-{checked_run_id(run)}"


def labels(run: str, component: str) -> dict[str, str]:
    """Labels of everything that belongs to a run."""
    return {
        "app.kubernetes.io/name": PIECEWORK,
        "app.kubernetes.io/instance": run,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": PIECEWORK,
        MANAGED_BY: PIECEWORK,
        RUN: run,
    }


def version_label() -> dict[str, str]:
    """The recommended label that changes with every release: for objects, never for pod templates."""
    return {"app.kubernetes.io/version": __version__}


def run_selector(run: str) -> str:
    """Selects what belongs to a run."""
    return f"{MANAGED_BY}={PIECEWORK},{RUN}={checked_run_id(run)}"


ALL_RUNS = f"{MANAGED_BY}={PIECEWORK},{RUN}"
"""Selects what belongs to any run."""
ALL_SCHEDULES = f"{MANAGED_BY}={PIECEWORK},{SCHEDULE}"


def reserved(given: dict[str, str], option: str) -> None:
    """Raise `UsageError` if labels or annotations of the user are among piecework's own."""
    own = {*labels("x", "x"), *version_label(), SCHEDULE, FINGERPRINT, IDENTITY, RECORDED}
    for key in sorted(own & given.keys()):
        raise UsageError(f"{option} {key}={given[key]}: piecework sets {key} itself; choose another key")
