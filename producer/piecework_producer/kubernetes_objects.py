"""What piecework reads of the API's objects: typed, and only the fields that it looks at. Unknown ones are
ignored.

Objects are written as `Manifest`s, plain dictionaries in the API's own spelling; these structs are for what
comes back. The field names are the API's, in Python's spelling:
https://kubernetes.io/docs/reference/kubernetes-api/
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from urllib.parse import quote

from msgspec import Struct

Manifest = dict[str, object]
"""An object as it is sent to the API server or printed as YAML."""


class _Object(Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all structs here."""


class OwnerReference(_Object, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class Meta(_Object, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None

    def label(self, key: str) -> str:
        """The label's value, or "" without one."""
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        """The annotation's value, or "" without one."""
        return (self.annotations or {}).get(key, "")


class Condition(_Object, frozen=True):
    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class Terminated(_Object, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class Waiting(_Object, frozen=True):
    reason: str = ""
    message: str = ""


class Running(_Object, frozen=True):
    started_at: datetime | None = None


class ContainerState(_Object, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Object, frozen=True):
    name: str = ""
    image: str = ""
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class ContainerPort(_Object, frozen=True):
    name: str = ""
    container_port: int = 0


class Container(_Object, frozen=True):
    name: str = ""
    image: str = ""
    ports: list[ContainerPort] | None = None


class PodSpec(_Object, frozen=True):
    containers: list[Container] = []
    node_name: str = ""
    restart_policy: str = ""


class PodStatus(_Object, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Pod(_Object, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type."""
        return next((each for each in self.status.conditions or () if each.type == kind), None)


class JobTemplateSpec(_Object, frozen=True):
    spec: PodSpec = PodSpec()


class JobSpec(_Object, frozen=True):
    parallelism: int = 1
    completions: int | None = None
    backoff_limit: int = 6
    suspend: bool = False
    template: JobTemplateSpec = JobTemplateSpec()


class JobStatus(_Object, frozen=True):
    start_time: datetime | None = None
    completion_time: datetime | None = None
    active: int = 0
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    conditions: list[Condition] | None = None


class Job(_Object, frozen=True):
    metadata: Meta = Meta()
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if its status is True."""
        found = (each for each in self.status.conditions or () if each.type == kind and each.status == "True")
        return next(found, None)

    @property
    def finished(self) -> bool:
        """Whether the Job controller is done with it."""
        return self.condition("Complete") is not None or self.condition("Failed") is not None


class ObjectReference(_Object, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class Event(_Object, frozen=True):
    metadata: Meta = Meta()
    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None


class CronJobSpec(_Object, frozen=True):
    schedule: str = ""
    time_zone: str | None = None
    suspend: bool = False
    concurrency_policy: str = ""
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: int = 3
    failed_jobs_history_limit: int = 1


class CronJobStatus(_Object, frozen=True):
    active: list[ObjectReference] | None = None
    last_schedule_time: datetime | None = None
    last_successful_time: datetime | None = None


class CronJob(_Object, frozen=True):
    metadata: Meta = Meta()
    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()


class ServicePort(_Object, frozen=True):
    name: str = ""
    port: int = 0
    target_port: int | str | None = None


class ServiceSpec(_Object, frozen=True):
    selector: dict[str, str] | None = None
    ports: list[ServicePort] | None = None


class Service(_Object, frozen=True):
    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()


class Plain(_Object, frozen=True):
    """An object of which only the metadata matters."""

    metadata: Meta = Meta()


def part(manifest: Manifest, *path: str) -> Manifest:
    """The mapping at `path`; empty if there is none."""
    for key in path:
        below = manifest.get(key)
        manifest = below if isinstance(below, dict) else {}
    return manifest


T = TypeVar("T")


@dataclass(frozen=True)
class Resource(Generic[T]):
    """A kind of object and where the API serves it."""

    api_version: str
    """`v1`, or `GROUP/VERSION`."""
    kind: str
    plural: str
    type: type[T]
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; "" for the core one."""
        return self.api_version.rpartition("/")[0]

    @property
    def full_name(self) -> str:
        """As the API server's messages name it: `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, *rest: str) -> str:
        """URL path of the collection, or of what `rest` names in it."""
        base = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return "/".join([f"{base}{place}/{self.plural}", *(quote(part, safe="") for part in rest)])


JOBS = Resource("batch/v1", "Job", "jobs", Job)
CRON_JOBS = Resource("batch/v1", "CronJob", "cronjobs", CronJob)
PODS = Resource("v1", "Pod", "pods", Pod)
EVENTS = Resource("v1", "Event", "events", Event)
SERVICES = Resource("v1", "Service", "services", Service)
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps", Plain)
SECRETS = Resource("v1", "Secret", "secrets", Plain)
SERVICE_ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts", Plain)
ROLES = Resource("rbac.authorization.k8s.io/v1", "Role", "roles", Plain)
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", Plain)
NAMESPACES = Resource("v1", "Namespace", "namespaces", Plain, namespaced=False)
