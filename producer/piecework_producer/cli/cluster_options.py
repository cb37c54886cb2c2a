"""The options of the Kubernetes side, named as kubectl and the API name them."""

from pathlib import Path
from typing import Annotated

import typer

_CLUSTER, _JOB, _PODS = "Kubernetes", "Kubernetes: the Job", "Kubernetes: its pods"


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> object:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


On = Annotated[
    str | None,
    _option(
        "--on",
        panel=_CLUSTER,
        metavar="local|kubernetes",
        help="Where the workers are. Default: as submitted.",
    ),
]
Namespace = Annotated[str | None, _option("--namespace", "-n", panel=_CLUSTER, help="Default: the context's.")]
Context = Annotated[str | None, _option("--context", panel=_CLUSTER, help="Of the kubeconfig. Default: the current.")]
Kubeconfig = Annotated[Path | None, _option("--kubeconfig", panel=_CLUSTER, help="Default: as kubectl.")]
StartTimeout = Annotated[
    float | None,
    _option("--start-timeout", panel=_CLUSTER, metavar="SECONDS", help="Give up on workers that cannot start."),
]
Image = Annotated[str | None, _option("--image", panel=_PODS, help="The pods' image.")]
ImagePullPolicy = Annotated[
    str | None,
    _option("--image-pull-policy", panel=_PODS, metavar="Always|IfNotPresent|Never", help="As in the API."),
]
ImagePullSecret = Annotated[list[str] | None, _option("--image-pull-secret", panel=_PODS, help="May be repeated.")]
Code = Annotated[
    Path | None,
    _option("--code", panel=_PODS, help="A module or directory to mount in the pods: no image to build."),
]
Env = Annotated[list[str] | None, _option("--env", panel=_PODS, metavar="KEY=VALUE", help="In plain text.")]
EnvFromSecret = Annotated[list[str] | None, _option("--env-from-secret", panel=_PODS, help="A Secret's keys.")]
Request = Annotated[list[str] | None, _option("--request", panel=_PODS, metavar="cpu=1", help="Resource requests.")]
Limit = Annotated[list[str] | None, _option("--limit", panel=_PODS, metavar="memory=1Gi", help="Resource limits.")]
NodeSelector = Annotated[list[str] | None, _option("--node-selector", panel=_PODS, metavar="KEY=VALUE", help="Nodes.")]
Tolerate = Annotated[
    list[str] | None,
    _option(
        "--toleration",
        panel=_PODS,
        metavar="KEY[=VALUE][:EFFECT]",
        help="A taint to put up with: spot nodes.",
    ),
]
Spread = Annotated[str | None, _option("--spread", panel=_PODS, metavar="KEY", help="Topology key to spread over.")]
PriorityClass = Annotated[str | None, _option("--priority-class", panel=_PODS, help="Name of a PriorityClass.")]
ServiceAccount = Annotated[str | None, _option("--service-account", panel=_PODS, help="Its token is not mounted.")]
RunAsUser = Annotated[int | None, _option("--run-as-user", panel=_PODS, help="Default: 65532. Never 0.")]
Label = Annotated[list[str] | None, _option("--label", panel=_JOB, metavar="KEY=VALUE", help="Of the Job.")]
Annotate = Annotated[list[str] | None, _option("--annotation", panel=_JOB, metavar="KEY=VALUE", help="Of the Job.")]
BackoffLimit = Annotated[int | None, _option("--backoff-limit", panel=_JOB, help="Default: 6 + 2 × parallelism.")]
ActiveDeadline = Annotated[
    int | None, _option("--active-deadline", panel=_JOB, metavar="SECONDS", help="activeDeadlineSeconds.")
]
Ttl = Annotated[
    int | None,
    _option("--ttl", panel=_JOB, metavar="SECONDS", help="ttlSecondsAfterFinished. Default: 7 days."),
]
RedisSecret = Annotated[
    str | None,
    _option("--redis-secret", panel=_PODS, help="Secret with url and password. Default: piecework-redis."),
]
RedisTlsSecret = Annotated[
    str | None,
    _option("--redis-tls-secret", panel=_PODS, help="Secret with ca.crt, and tls.crt and tls.key, for rediss://."),
]
Queue = Annotated[str | None, _option("--queue", panel=_JOB, help="Kueue's LocalQueue; the Job starts suspended.")]
MinParallelism = Annotated[
    int | None, _option("--min-parallelism", panel=_JOB, help="Kueue may start the Job with so few workers.")
]
Patch = Annotated[
    Path | None,
    _option("--patch", panel=_JOB, metavar="FILE", help="Strategic merge patch of the Job, for all else."),
]
Replace = Annotated[
    bool | None, _option("--replace", panel=_JOB, help="A Job of this run with other settings is replaced.")
]
DryRun = Annotated[
    str | None,
    _option("--dry-run", panel=_JOB, metavar="client|server", help="Print the YAML and change nothing."),
]
Completions = Annotated[
    int | None,
    _option("--completions", panel=_JOB, help="A plain Job: so many pods run the command after --."),
]
RestartPolicy = Annotated[
    str | None, _option("--restart-policy", panel=_JOB, metavar="Never|OnFailure", help="Of a plain Job.")
]
