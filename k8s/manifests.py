"""Looking into manifests, which are plain dictionaries, without a cast at every step."""

from collections.abc import Iterable, Iterator

from piecework_producer.kubernetes_objects import Manifest, part


def entries(manifest: Manifest, *path: str) -> list[Manifest]:
    """The list of mappings at `path`; empty if there is none."""
    found = part(manifest, *path[:-1]).get(path[-1])
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def text(manifest: Manifest, *path: str) -> str:
    """What is at `path`, as text; "" if there is nothing."""
    found = part(manifest, *path[:-1]).get(path[-1])
    return "" if found is None else str(found)


def title(manifest: Manifest) -> str:
    """Kind and name, as kubectl writes them."""
    return f"{text(manifest, 'kind').lower()}/{text(manifest, 'metadata', 'name')}"


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """Those of this kind."""
    return [each for each in manifests if each.get("kind") == kind]


def pod_templates(manifest: Manifest) -> Iterator[Manifest]:
    """The pod template of a workload (of a CronJob: its Job's); none for other kinds."""
    for path in (("spec", "template"), ("spec", "jobTemplate", "spec", "template")):
        template = part(manifest, *path)
        if part(template, "spec"):
            yield template


def containers(template: Manifest) -> list[Manifest]:
    """All containers of a pod template, the init containers too."""
    names = ("initContainers", "containers", "ephemeralContainers")
    return [each for name in names for each in entries(template, "spec", name)]


def selects(selector: Manifest, labels: Manifest) -> bool:
    """Whether a LabelSelector selects an object with these labels."""
    if any(labels.get(key) != value for key, value in part(selector, "matchLabels").items()):
        return False
    for each in entries(selector, "matchExpressions"):
        value, among = labels.get(text(each, "key")), each.get("values")
        listed = isinstance(among, list) and value in among
        match each.get("operator"):
            case "In":
                fits = listed
            case "NotIn":
                fits = not listed
            case "Exists":
                fits = value is not None
            case _:  # DoesNotExist
                fits = value is None
        if not fits:
            return False
    return True
