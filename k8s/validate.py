"""Checks all of k8s/ and every manifest that the code makes: `python -m k8s.validate`, in the root folder.

Prints each problem and exits with 1 if there is one. Reads files, runs the pinned kubectl to render them, and
needs neither a cluster nor a network.
"""

import sys
from collections.abc import Iterator

from k8s.agreement import (
    inner_problems,
    network_problems,
    redis_problems,
    rights,
    rights_of_schedules,
    rights_used,
)
from k8s.generated import generated
from k8s.manifests import of_kind, pod_templates, text
from k8s.pod_security import restricted_problems
from k8s.rendered import HERE, all_rendered
from k8s.schemas import VERSIONS, format_problems, schema_problems
from piecework_producer.kubernetes_objects import Manifest


def problems_of(manifest: Manifest) -> Iterator[str]:
    """What is wrong with one object by itself."""
    for version in VERSIONS:
        yield from schema_problems(manifest, version)
    yield from format_problems(manifest)
    yield from restricted_problems(manifest, token=_is_producer(manifest))


def _is_producer(manifest: Manifest) -> bool:
    """Only a schedule's pods speak with the API server."""
    return any(
        text(each, "metadata", "labels", "app.kubernetes.io/component") == "producer"
        for each in pod_templates(manifest)
    )


def agreement_problems() -> Iterator[str]:
    """Where k8s/ and the code differ."""
    folders = all_rendered()
    acl = (HERE / "base" / "redis" / "users.acl").read_text()
    for folder in ("base", "overlays/dev"):
        yield from redis_problems(folders[folder], acl)
        for policy in of_kind(folders[folder], "NetworkPolicy"):
            yield from network_problems(policy)
    wanted = {"piecework-producer": rights_of_schedules(), "piecework-people": rights_used()}
    for manifests in folders.values():
        for role in of_kind(manifests, "Role"):
            name, granted = text(role, "metadata", "name"), rights(role)
            for right in sorted(granted - wanted[name]):
                yield f"Role {name}: the code never asks for {right}"
            for right in sorted(wanted[name] - granted):
                yield f"Role {name}: the code asks for {right}"
    for right in sorted(rights_of_schedules() - rights_used()):
        yield f"the Role of a schedule: the code never asks for {right}"


def all_problems() -> Iterator[str]:
    """Everything, as lines that name the folder or the generated object."""
    for folder, manifests in all_rendered().items():
        found = [problem for each in manifests for problem in problems_of(each)]
        yield from (f"k8s/{folder}: {problem}" for problem in (*found, *inner_problems(manifests)))
    for name, manifest in generated():
        yield from (f"generated, {name}: {problem}" for problem in problems_of(manifest))
    yield from agreement_problems()


def main() -> int:
    """Print the problems, or what was checked."""
    problems = list(all_problems())
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problems")
        return 1
    rendered = sum(len(manifests) for manifests in all_rendered().values())
    made = sum(1 for _ in generated())
    print(f"{rendered} objects of k8s/ and {made} generated ones fit Kubernetes {', '.join(VERSIONS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
