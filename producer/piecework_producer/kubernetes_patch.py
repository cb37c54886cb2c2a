"""Strategic merge of a --patch file into a manifest, before it is sent, and manifests as YAML.

The rules and merge keys are those of the API for the objects that piecework makes
(https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/): maps are
merged, null removes, lists of objects with a merge key are merged by it, all other lists are replaced. Of
the directives,
`$patch: delete` and `$patch: replace` are known; others are refused rather than misread.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from piecework.errors import UsageError
from piecework_producer.kubernetes_objects import Manifest

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
    "hostAliases": "ip",
    "ownerReferences": "uid",
}
_UNIONS = ("finalizers",)


def read_patch(file: Path) -> Manifest:
    """A patch from a YAML or JSON file."""
    try:
        patch: object = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UsageError(f"--patch {file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--patch {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(patch, dict):
        raise UsageError(f"--patch {file} is not a YAML mapping like `spec: …`")
    return patch


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """As `kubectl apply -f -` reads them."""
    return yaml.safe_dump_all(manifests, sort_keys=False, explicit_start=len(manifests) > 1)


def merged(original: Manifest, patch: Manifest, path: str = "") -> Manifest:
    """A new manifest: `original` with `patch` merged in. Neither is changed. Raises `UsageError`."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    _no_directives(patch, path)
    result = dict(original)
    for key, value in patch.items():
        here = f"{path}.{key}" if path else key
        old = original.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(old if isinstance(old, dict) else {}, value, here)
        elif isinstance(value, list):
            result[key] = _merged_list(old if isinstance(old, list) else [], value, key, here)
        else:
            result[key] = value
    return result


def _merged_list(original: list[object], patch: list[object], name: str, path: str) -> list[object]:
    if name in _UNIONS:
        return original + [each for each in patch if each not in original]
    merge_key = _MERGE_KEYS.get(name)
    if merge_key is None:
        return patch
    if {"$patch": "replace"} in patch:
        return [each for each in patch if each != {"$patch": "replace"}]
    result = list(original)
    for each in patch:
        if not isinstance(each, dict) or merge_key not in each:
            raise UsageError(f"--patch: each entry of {path} needs its {merge_key}, by which it is merged")
        found = [at for at, old in enumerate(result) if isinstance(old, dict) and old.get(merge_key) == each[merge_key]]
        if each.get("$patch") == "delete":
            result = [old for at, old in enumerate(result) if at not in found]
        elif found:
            old = result[found[0]]
            result[found[0]] = merged(old if isinstance(old, dict) else {}, each, f"{path}[{each[merge_key]}]")
        else:
            result.append(merged({}, each, path))
    return result


def _no_directives(patch: Manifest, path: str) -> None:
    for key in patch:
        if str(key).startswith("$"):
            raise UsageError(
                f"--patch: {key} at {path or 'the top'} is not known here; "
                "known are `$patch: replace` and, in lists, `$patch: delete`"
            )
