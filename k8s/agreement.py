"""Whether the parts name each other rightly: the objects of k8s/, and k8s/ and the producer's code."""

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import piecework_producer
from k8s.manifests import containers, entries, of_kind, pod_templates, selects, text, title
from piecework.keys import CONTRACT
from piecework_producer import kubernetes_labels as names
from piecework_producer import kubernetes_objects as objects
from piecework_producer.kubernetes_cronjob import producer_rules, schedule_labels
from piecework_producer.kubernetes_fixed_job import COMPONENT
from piecework_producer.kubernetes_job import RedisSecret
from piecework_producer.kubernetes_objects import Manifest, Resource, part

PRODUCER_SECRET = "piecework-redis-producer"  # noqa: S105 - the name of a Secret
Right = tuple[str, str, str]
"""(API group, resource, verb)."""


def inner_problems(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Selectors, ports, references and namespaces within one folder's objects."""
    namespaces = {text(each, "metadata", "namespace") for each in manifests if each["kind"] != "Namespace"}
    namespaces |= {text(each, "metadata", "name") for each in of_kind(manifests, "Namespace")}
    if len(namespaces) != 1:
        yield f"objects in several namespaces: {sorted(namespaces)}"
    for each in manifests:
        for problem in (
            *_selectors(each, manifests),
            *_references(each, manifests),
            *_bound(each, manifests),
        ):
            yield f"{title(each)}: {problem}"


def _selectors(manifest: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Whatever selects pods selects the ones that are there, and names their port."""
    selectors: dict[str, Manifest] = {
        "Service": {"matchLabels": part(manifest, "spec", "selector")},
        "NetworkPolicy": part(manifest, "spec", "podSelector"),
        "PodDisruptionBudget": part(manifest, "spec", "selector"),
        "StatefulSet": part(manifest, "spec", "selector"),
    }
    selector = selectors.get(text(manifest, "kind"))
    if selector is None:
        return
    templates = [each for workload in manifests for each in pod_templates(workload)]
    chosen = [each for each in templates if selects(selector, part(each, "metadata", "labels"))]
    if not selector:
        yield "selects every pod"
        return
    if len(chosen) != 1:
        yield f"selects {len(chosen)} of {len(templates)} pod templates"
        return
    open_ports = {port.get("containerPort") for each in containers(chosen[0]) for port in entries(each, "ports")}
    wanted = [port.get("targetPort") for port in entries(manifest, "spec", "ports")]
    wanted += [port.get("port") for rule in entries(manifest, "spec", "ingress") for port in entries(rule, "ports")]
    for port in wanted:
        if port not in open_ports:
            yield f"names the port {port}; the pod has {open_ports}"
    name = text(manifest, "spec", "serviceName")
    if name and not [each for each in of_kind(manifests, "Service") if text(each, "metadata", "name") == name]:
        yield f"its Service {name} is not there"


def _references(manifest: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Volumes come from ConfigMaps and Secrets that are there, and mounts from volumes."""
    for template in pod_templates(manifest):
        volumes = [*entries(template, "spec", "volumes"), *_claims(manifest)]
        for kind, field, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            for volume in (each for each in volumes if kind in each):
                wanted = text(volume, kind, name)
                found = [each for each in of_kind(manifests, field) if text(each, "metadata", "name") == wanted]
                keys = {text(item, "key") for item in entries(volume, kind, "items")}
                if not found or keys - part(found[0], "data").keys():
                    yield f"{field} {wanted} with {sorted(keys)} is not there"
        known = {text(each, "name") for each in volumes}
        for container in containers(template):
            for mount in entries(container, "volumeMounts"):
                if mount["name"] not in known:
                    yield f"mounts {mount['name']}, which is no volume"


def _claims(manifest: Manifest) -> list[Manifest]:
    return [part(each, "metadata") for each in entries(manifest, "spec", "volumeClaimTemplates")]


def _bound(manifest: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    if manifest.get("kind") != "RoleBinding":
        return
    known = {(each["kind"], text(each, "metadata", "name")) for each in manifests}
    wanted = [part(manifest, "roleRef"), *entries(manifest, "subjects")]
    for each in wanted:
        if each["kind"] != "Group" and (each["kind"], each["name"]) not in known:
            yield f"binds {each['kind']} {each['name']}, which is not there"


# --- with the code


def redis_problems(manifests: Sequence[Manifest], acl: str) -> Iterator[str]:
    """The server is where its Secrets say, for users that its ACL knows, in the form that pods expect."""
    wanted = RedisSecret()
    for name, user in ((wanted.name, "worker"), (PRODUCER_SECRET, "producer")):
        secret = secret_data(manifests, name)
        url = urlsplit(secret.get(wanted.url_key, ""))
        services = [each for each in of_kind(manifests, "Service") if text(each, "metadata", "name") == url.hostname]
        ports = [port.get("port") for each in services for port in entries(each, "spec", "ports")]
        if url.port not in ports:
            yield f"Secret {name}: its URL names {url.hostname}:{url.port}, which is no Service here"
        if url.username != user or f"\nuser {user} on " not in acl:
            yield f"Secret {name}: its user is {url.username}, not the ACL's {user}"
        if url.password or not secret.get(wanted.password_key, "").startswith("change-me"):
            yield f"Secret {name}: only example passwords, which begin with change-me, belong into git"
    keys = set(re.findall(r"~(\S+)", acl))
    if keys != {f"piecework:{CONTRACT}:*", "rq:*", "*"}:
        yield f"the ACL allows the keys {sorted(keys)}, not those of contract version {CONTRACT}"
    for server in of_kind(manifests, "StatefulSet"):
        yield from _memory(server)


def _memory(server: Manifest) -> Iterator[str]:
    container = containers(next(pod_templates(server)))[0]
    given = {text(each, "name"): text(each, "value") for each in entries(container, "env")}
    limit = text(container, "resources", "limits", "memory")
    factor = {"Mi": 1, "Gi": 1024}[limit[-2:]]
    if not given["MAXMEMORY"].endswith("mb") or int(given["MAXMEMORY"][:-2]) > 0.65 * int(limit[:-2]) * factor:
        yield f"maxmemory {given['MAXMEMORY']} leaves less than a third of the limit, {limit}, to a rewrite"


def network_problems(policy: Manifest) -> Iterator[str]:
    """The pods of runs and schedules reach the server, those of fixed-count Jobs and of others do not."""
    rules = entries(policy, "spec", "ingress")
    if len(rules) != 1 or policy.get("kind") != "NetworkPolicy":
        yield "NetworkPolicy: not one rule"
        return
    pods = {
        "a worker": (names.labels("x", "worker"), True),
        "a scheduled producer": (schedule_labels("x"), True),
        "a fixed-count Job's pod": (names.labels("x", COMPONENT), False),
        "a stranger's pod": ({"app.kubernetes.io/component": "worker"}, False),
        "a pod without labels": ({}, False),
    }
    for who, (labels, may) in pods.items():
        sources = entries(rules[0], "from")
        reaches = any(
            selects(part(each, "podSelector"), dict(labels)) and each.keys() == {"podSelector"} for each in sources
        )
        if reaches is not may:
            yield f"NetworkPolicy: {who} {'reaches' if reaches else 'does not reach'} the server"


def secret_data(manifests: Iterable[Manifest], name: str) -> dict[str, str]:
    """A Secret's data, decoded; empty if there is none."""
    for each in of_kind(manifests, "Secret"):
        if text(each, "metadata", "name") == name:
            return {key: base64.b64decode(str(value)).decode() for key, value in part(each, "data").items()}
    return {}


def rights(role: Manifest) -> set[Right]:
    """What a Role allows."""
    found: set[Right] = set()
    for rule in entries(role, "rules"):
        found |= set(product(_texts(rule, "apiGroups"), _texts(rule, "resources"), _texts(rule, "verbs")))
    return found


def _texts(manifest: Manifest, name: str) -> list[str]:
    found = manifest.get(name)
    return [str(each) for each in found] if isinstance(found, list) else []


def rights_of_schedules() -> set[Right]:
    """What the Role of each schedule allows; the code makes it."""
    return rights({"rules": producer_rules("x")})


_CALL = re.compile(r"(?:\b|_)cluster\.(create|get|list|patch|apply|delete|watch)\(\s*(\w+)")
_MIRROR = re.compile(r"\bMirror\((?:self\._)?cluster, (\w+)")
_SEVERAL = re.compile(r"= \(([A-Z_]+(?:, [A-Z_]+)+)\)|for resource in \(([A-Z_]+(?:, [A-Z_]+)+)\)")


def rights_used() -> set[Right]:
    """What the producer asks of an API server, by its source: `cluster.VERB(RESOURCE, …)` and so on."""
    used: set[Right] = set()
    for file in Path(piecework_producer.__file__).parent.rglob("*.py"):
        source = file.read_text()
        calls = [(verb, name) for verb, name in _CALL.findall(source)]
        calls += [(verb, name) for name in _MIRROR.findall(source) for verb in ("list", "watch")]
        for verb, name in calls:
            for resource in _resources(name, source):
                for each in ("patch", "create") if verb == "apply" else (verb,):
                    used.add((resource.group, resource.plural, each))
        if re.search(r"(?:\b|_)cluster\.logs\(", source):
            used.add(("", "pods/log", "get"))
        if re.search(r"(?:\b|_)cluster\.port_forward\(", source):
            used.add(("", "pods/portforward", "create"))
    return used


def _resources(name: str, source: str) -> list[Resource[Any]]:
    """The resource of this name; for the variable `resource`, all those that the source file loops over."""
    listed = [part for found in _SEVERAL.findall(source) for group in found for part in group.split(", ") if part]
    candidates = listed if name == "resource" else [{"_WHOLE": "CRON_JOBS"}.get(name, name)]
    return [getattr(objects, each) for each in candidates if hasattr(objects, each)]
