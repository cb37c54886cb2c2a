"""The API's published schemas, in which a field that they do not know is an error."""

import re

from kubernetes_validate import utils as validator  # type: ignore[import-untyped]

from k8s.manifests import containers, pod_templates, text, title
from piecework_producer.kubernetes_objects import Manifest, part

VERSIONS = ("1.35", "1.36", "1.37")
"""The versions that are supported upstream at a time are three."""
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?|e[0-9]+)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def schema_problems(manifest: Manifest, version: str) -> list[str]:
    """What the schema of this Kubernetes version finds wrong; it stops at the first."""
    try:
        used = validator.validate(manifest, version, strict=True)
    except validator.ValidationError as error:
        where = ".".join(str(step) for step in error.path) or "the top"
        return [f"{title(manifest)}, Kubernetes {version}: {where}: {error.message}"]
    except validator.SchemaNotFoundError as error:
        return [f"{title(manifest)}, Kubernetes {version}: {error.message}"]
    except validator.VersionNotSupportedError:
        return [f"there are no schemas for Kubernetes {version}"]
    if used != version:
        return [f"there are no schemas for Kubernetes {version}: kubernetes-validate took those of {used}"]
    return []


def format_problems(manifest: Manifest) -> list[str]:
    """Names, labels and quantities, whose form the schemas leave open and the API server does not."""
    problems: list[str] = []
    name = text(manifest, "metadata", "name")
    label = manifest.get("kind") in ("Namespace", "Service", "StatefulSet", "Job", "CronJob")
    longest = {"CronJob": 52, "Job": 63, "Namespace": 63, "Service": 63, "StatefulSet": 52}.get(
        str(manifest.get("kind")), 253
    )
    if len(name) > longest or not (_DNS_LABEL if label else _DNS_NAME).fullmatch(name):
        problems.append(f"{title(manifest)}: the name is not one")
    metadatas = [part(manifest, "metadata"), *(part(each, "metadata") for each in pod_templates(manifest))]
    for metadata in metadatas:
        for key, value in part(metadata, "labels").items():
            if not (isinstance(value, str) and _LABEL_VALUE.fullmatch(value)):
                problems.append(f"{title(manifest)}: the label {key} has the value {value!r}")
        for key, value in part(metadata, "annotations").items():
            if not isinstance(value, str):
                problems.append(f"{title(manifest)}: the annotation {key} is no text: {value!r}")
    for template in pod_templates(manifest):
        for container in containers(template):
            for kind in ("requests", "limits"):
                for resource, amount in part(container, "resources", kind).items():
                    if not _QUANTITY.fullmatch(str(amount)):
                        problems.append(f"{title(manifest)}: {kind} {resource}={amount!r} is no quantity")
    return problems
