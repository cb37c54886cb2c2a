"""The pod template: security, resources, placement. The same for workers, fixed-count Jobs and scheduled
producers.

Pods meet the `restricted` Pod Security Standard
(https://kubernetes.io/docs/concepts/security/pod-security-standards/): not root, a read-only root file
system with an emptyDir at /tmp, no privilege escalation, no capabilities, seccomp RuntimeDefault, no
service account token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from piecework.errors import UsageError
from piecework_producer.kubernetes_objects import Manifest

Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
_EFFECTS: tuple[Effect, ...] = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True)
class Toleration:
    """A taint that the pods put up with."""

    key: str
    value: str | None = None
    """None: any value (operator Exists)."""
    effect: Effect | None = None
    """None: any effect."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `KEY[=VALUE][:EFFECT]`, as `kubectl taint` writes taints."""
        rest, colon, effect = text.partition(":")
        key, equals, value = rest.partition("=")
        if not key or (colon and effect not in _EFFECTS):
            raise UsageError(f"toleration {text!r} is not KEY[=VALUE][:EFFECT] with an effect of {', '.join(_EFFECTS)}")
        known = next((each for each in _EFFECTS if each == effect), None)
        return cls(key, value if equals else None, known)

    def manifest(self) -> Manifest:
        """As in `spec.tolerations`."""
        value: Manifest = {"operator": "Exists"} if self.value is None else {"value": self.value}
        return {"key": self.key} | value | ({"effect": self.effect} if self.effect else {})


@dataclass(frozen=True)
class TopologySpread:
    """How evenly the pods of one Job are spread over nodes or zones."""

    topology_key: str = "kubernetes.io/hostname"
    max_skew: int = 1
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"

    def manifest(self, selector: Mapping[str, str]) -> Manifest:
        """As in `spec.topologySpreadConstraints`."""
        return {
            "maxSkew": self.max_skew,
            "topologyKey": self.topology_key,
            "whenUnsatisfiable": self.when_unsatisfiable,
            "labelSelector": {"matchLabels": dict(selector)},
        }


def _default_requests() -> Mapping[str, str]:
    return {"cpu": "100m", "memory": "128Mi"}


@dataclass(frozen=True, kw_only=True)
class PodOptions:
    """What a person may choose about the pods. Whatever is not here goes through --patch."""

    image: str
    command: tuple[str, ...] = ()
    """Instead of the image's entry point; empty: the entry point."""
    image_pull_policy: PullPolicy | None = None
    """None: the API's default (Always for :latest, else IfNotPresent)."""
    image_pull_secrets: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """In plain text in the Job; for secrets see `env_from_secrets`."""
    env_from_secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables."""
    requests: Mapping[str, str] = field(default_factory=_default_requests)
    limits: Mapping[str, str] = field(default_factory=dict)
    """None by default: a limit that is too low kills handlers."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    topology_spread: tuple[TopologySpread, ...] = (TopologySpread(),)
    priority_class: str | None = None
    service_account: str | None = None
    run_as_user: int = 65532
    """Never 0: the pods must not run as root."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def pod_template(
    options: PodOptions,
    *,
    container: str,
    args: list[str],
    labels: Mapping[str, str],
    spread_by: Mapping[str, str],
    env: list[Manifest],
    restart_policy: str,
    grace_seconds: int | None = None,
    service_account_token: bool = False,
) -> Manifest:
    """`spec.template` of a Job: one container, named `container`. `env` comes on top of the options'.

    `spread_by` are the labels that tell the pods that are to be spread.
    """
    if options.run_as_user < 1:
        raise UsageError("run_as_user 0 is root, which the restricted Pod Security Standard refuses; use 1 or more")
    spec: Manifest = {
        "restartPolicy": restart_policy,
        "automountServiceAccountToken": service_account_token,
        # Or every Service of the namespace would leave variables, some of them called PIECEWORK_…
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.run_as_user,
            "runAsGroup": options.run_as_user,
            "fsGroup": options.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(options, container, args, env)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if grace_seconds is not None:
        spec["terminationGracePeriodSeconds"] = grace_seconds
    optional: Manifest = {
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "nodeSelector": dict(options.node_selector),
        "tolerations": [each.manifest() for each in options.tolerations],
        "topologySpreadConstraints": [each.manifest(spread_by) for each in options.topology_spread],
        "priorityClassName": options.priority_class,
        "serviceAccountName": options.service_account,
    }
    spec |= {name: value for name, value in optional.items() if value}
    metadata: Manifest = {"labels": {**options.labels, **labels}}
    if options.annotations:
        metadata["annotations"] = dict(options.annotations)
    return {"metadata": metadata, "spec": spec}


def _container(options: PodOptions, name: str, args: list[str], env: list[Manifest]) -> Manifest:
    plain: list[Manifest] = [{"name": key, "value": literal(value)} for key, value in options.env.items()]
    taken = {str(each["name"]) for each in env}
    clash = sorted(taken & options.env.keys())
    if clash:
        raise UsageError(f"environment variable {clash[0]} is set by piecework itself; choose another name")
    container: Manifest = {
        "name": name,
        "image": options.image,
        "resources": {
            kind: dict(amounts)
            for kind, amounts in (("requests", options.requests), ("limits", options.limits))
            if amounts
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the pod
        # Without last words of its own, a container's last lines of log say why it ended.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    optional: Manifest = {
        "command": [literal(each) for each in options.command],
        "args": [literal(each) for each in args],
        "env": plain + env,
        "imagePullPolicy": options.image_pull_policy,
        "envFrom": [{"secretRef": {"name": each}} for each in options.env_from_secrets],
    }
    return container | {key: value for key, value in optional.items() if value}


def literal(text: str) -> str:
    """`text` so that the kubelet passes it on as it is, where it would put variables in for `$(NAME)`.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text
