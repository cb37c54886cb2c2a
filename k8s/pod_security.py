"""The `restricted` Pod Security Standard: https://kubernetes.io/docs/concepts/security/pod-security-standards/.

Written out from the standard, because a control plane answers a Job that breaks it with 201 and a warning,
and then makes no pod. On top of it: a read-only root file system, no token of a service account unless it is
meant, requests for CPU and memory, and an image with a tag of its own.
"""

from collections.abc import Iterator

from k8s.manifests import containers, entries, pod_templates, text, title
from piecework_producer.kubernetes_objects import Manifest, part

_VOLUMES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
_SECCOMP = ("RuntimeDefault", "Localhost")
_APPARMOR = ("", "RuntimeDefault", "Localhost")
_SELINUX = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SYSCTLS = frozenset(
    [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ]
)


def restricted_problems(manifest: Manifest, *, token: bool = False) -> list[str]:
    """What Pod Security, or this project, has against a workload's pods. `token`: they are to have one."""
    problems = []
    for template in pod_templates(manifest):
        problems += [*_pod(template), *_project(template, token)]
        for container in containers(template):
            name = text(container, "name")
            problems += [f"container {name}: {each}" for each in _container(container, part(template, "spec"))]
    return [f"{title(manifest)}: {problem}" for problem in problems]


def _pod(template: Manifest) -> Iterator[str]:
    spec = part(template, "spec")
    context = part(spec, "securityContext")
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} is set"
    for volume in entries(spec, "volumes"):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    for each in entries(context, "sysctls"):
        if each.get("name") not in _SYSCTLS:
            yield f"the sysctl {each.get('name')} is not a safe one"
    if part(context, "windowsOptions").get("hostProcess"):
        yield "hostProcess is set"
    if any("apparmor" in key for key in part(template, "metadata", "annotations")):
        yield "AppArmor is set by an annotation"
    yield from _labels_of_the_kernel(context)


def _container(container: Manifest, spec: Manifest) -> Iterator[str]:
    own, pod = part(container, "securityContext"), part(spec, "securityContext")
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if 0 in (own.get("runAsUser"), pod.get("runAsUser")):
        yield "runAsUser is 0, root"
    dropped, added = part(own, "capabilities").get("drop"), part(own, "capabilities").get("add")
    if not isinstance(dropped, list) or "ALL" not in dropped:
        yield "it does not drop all capabilities"
    if isinstance(added, list) and set(added) - {"NET_BIND_SERVICE"}:
        yield f"it adds the capabilities {added}"
    seccomp = text(own, "seccompProfile", "type") or text(pod, "seccompProfile", "type")
    if seccomp not in _SECCOMP:
        yield f"its seccomp profile is {seccomp or 'not set'}"
    if own.get("procMount", "Default") != "Default":
        yield "procMount is not Default"
    if part(own, "windowsOptions").get("hostProcess"):
        yield "hostProcess is set"
    if any(port.get("hostPort") for port in entries(container, "ports")):
        yield "it takes a port of the node"
    yield from _hosts_of_probes(container)
    yield from _labels_of_the_kernel(own)
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root file system is not read-only"
    for resource in ("cpu", "memory"):
        if resource not in part(container, "resources", "requests"):
            yield f"it requests no {resource}"
    image, at, tag = text(container, "image").rpartition(":")
    if not at or "/" in tag or tag == "latest":
        yield f"its image {image or tag} has no tag of its own"


def _labels_of_the_kernel(context: Manifest) -> Iterator[str]:
    linux = part(context, "seLinuxOptions")
    if text(linux, "type") not in _SELINUX or linux.get("user") or linux.get("role"):
        yield f"seLinuxOptions {linux}"
    if text(context, "appArmorProfile", "type") not in _APPARMOR:
        yield f"appArmorProfile {text(context, 'appArmorProfile', 'type')}"


def _hosts_of_probes(container: Manifest) -> Iterator[str]:
    """Since 1.34: probes and hooks must not name another host."""
    hooks = [part(container, "lifecycle", name) for name in ("postStart", "preStop")]
    for hook in [*(part(container, f"{name}Probe") for name in ("liveness", "readiness", "startup")), *hooks]:
        for kind in ("httpGet", "tcpSocket"):
            if part(hook, kind).get("host"):
                yield "a probe or hook names a host"


def _project(template: Manifest, token: bool) -> Iterator[str]:
    spec = part(template, "spec")
    if spec.get("automountServiceAccountToken") is not token:
        yield f"automountServiceAccountToken is not {token}"
    if spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not False: Services would leave variables called PIECEWORK_…"
