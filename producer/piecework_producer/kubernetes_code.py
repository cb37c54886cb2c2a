"""`--code PATH`: a module or a directory packed into an immutable ConfigMap, mounted and importable in the
pods.

The ConfigMap's name holds a digest of its content, so that packing the same code again finds the one that is
there, and a crash at any line leaves at most a ConfigMap that the same command takes up again. It belongs
to the Job and goes with it. A file is a key, and the volume's `items` give it back its path. The mount is the
worker's working directory, which a worker can import from; the image's PYTHONPATH counts as before.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pathspec

from piecework.errors import UsageError
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_objects import Manifest
from piecework_producer.kubernetes_patch import merged

MOUNT_PATH = "/piecework/code"
MOST_BYTES = 1024 * 1024
"""Kubernetes' limit for the data of a ConfigMap."""
MOST_FILES = 1000
"""Each file is an entry in the Job and in every pod."""
_ALWAYS_IGNORED = (".git/", "__pycache__/", "*.py[cod]", ".venv/", ".DS_Store")
_IMAGE = (
    "Put it into an image instead: FROM piecework-worker, COPY it to the working directory, and submit with --image"
)


@dataclass(frozen=True)
class CodeFile:
    """One file of the code."""

    path: str
    """Relative to the mount, with slashes."""
    data: bytes
    executable: bool


@dataclass(frozen=True)
class CodeBundle:
    """Packed code, and the run that it is for."""

    run: str
    files: tuple[CodeFile, ...]

    @property
    def name(self) -> str:
        """Name of the ConfigMap: the run's Job and a digest of the content."""
        digest = hashlib.sha256()
        for file in self.files:
            for part in (file.path.encode(), b"x" if file.executable else b"", file.data):
                digest.update(len(part).to_bytes(8, "big") + part)
        return f"{names.job_name(self.run)}-code-{digest.hexdigest()[:12]}"

    def manifest(self) -> Manifest:
        """The ConfigMap; it gets its owner once there is one."""
        text: dict[str, str] = {}
        binary: dict[str, str] = {}
        for key, file in self._keyed():
            try:
                if "\0" in (content := file.data.decode()):
                    raise UnicodeError
                text[key] = content
            except UnicodeError:
                binary[key] = base64.b64encode(file.data).decode()
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "labels": names.labels(self.run, "code")},
            "immutable": True,
        } | {name: data for name, data in (("data", text), ("binaryData", binary)) if data}

    def items(self) -> list[Manifest]:
        """Which key of the ConfigMap becomes which file of the volume."""
        return [
            {"key": key, "path": file.path, "mode": 0o555 if file.executable else 0o444} for key, file in self._keyed()
        ]

    def _keyed(self) -> Iterator[tuple[str, CodeFile]]:
        """A key has no slash: it is the number and, to be readable, the name of the file."""
        for number, file in enumerate(self.files):
            readable = re.sub(r"[^A-Za-z0-9._-]", "_", file.path)
            yield f"{number:04}_{readable[-240:]}", file


def pack(path: Path, run: str) -> CodeBundle:
    """Pack a `.py` file, a package, or a directory of modules. Raises `UsageError`.

    A package is mounted under its name; of any other directory, what is in it. What a `.gitignore` in it,
    or a `.dockerignore` at its top, ignores stays out.
    """
    root = path.resolve()
    if root.is_file():
        found = [(root.name, root)]
    elif root.is_dir():
        prefix = f"{root.name}/" if (root / "__init__.py").is_file() else ""
        found = [(prefix + name, file) for name, file in _walk(root)]
    else:
        raise UsageError(f"--code {path}: there is no such file or directory")
    for name, file in found:
        _refuse_odd(path, root, name, file)
    if not found:
        raise UsageError(f"--code {path}: nothing in it that .gitignore or .dockerignore does not ignore")
    if len(found) > MOST_FILES:
        raise UsageError(
            f"--code {path}: {len(found):,} files are more than the {MOST_FILES:,} that can be mounted. "
            f"Ignore what is not needed in .gitignore or .dockerignore. {_IMAGE}"
        )
    try:
        sizes = sorted(((file.stat().st_size, name) for name, file in found), reverse=True)
        total = sum(size for size, _ in sizes)
        if total > MOST_BYTES:
            largest = ", ".join(f"{name} ({size:,})" for size, name in sizes[:3])
            raise UsageError(
                f"--code {path}: {total:,} bytes are more than the {MOST_BYTES:,} that a ConfigMap holds; "
                f"the largest are {largest}. "
                f"Ignore what is not needed in .gitignore or .dockerignore. {_IMAGE}"
            )
        files = [CodeFile(name, file.read_bytes(), os.access(file, os.X_OK)) for name, file in found]
    except OSError as error:
        raise UsageError(f"--code {path}: {error.filename} cannot be read: {error.strerror}") from None
    return CodeBundle(run, tuple(sorted(files, key=lambda each: each.path)))


def _refuse_odd(path: Path, root: Path, name: str, file: Path) -> None:
    """What would carry more into the cluster than the directory that was named, or what the API does not take."""
    if root.is_dir() and not file.resolve().is_relative_to(root):
        raise UsageError(
            f"--code {path}: {name} is a link that leads out of it, to {file.resolve()}: put the file itself there, or "
            "ignore it in .gitignore"
        )
    if not name.isprintable() or name.startswith(".."):
        raise UsageError(f"--code {path}: a file cannot be mounted under the name {name!a}: rename it, or ignore it")


def mounted(template: Manifest, code: CodeBundle, container: str) -> Manifest:
    """A pod template whose container of this name has the code mounted, and works in it."""
    mount: Manifest = {"name": "code", "mountPath": MOUNT_PATH, "readOnly": True}
    volume: Manifest = {"name": "code", "configMap": {"name": code.name, "items": code.items()}}
    added: Manifest = {"name": container, "workingDir": MOUNT_PATH, "volumeMounts": [mount]}
    return merged(template, {"spec": {"containers": [added], "volumes": [volume]}})


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Files under `root` that nothing ignores, with their path in it. Links to directories are not
    followed.
    """
    docker = _docker_rules(root / ".dockerignore")
    rules: dict[Path, pathspec.GitIgnoreSpec] = {}
    always = pathspec.GitIgnoreSpec.from_lines(_ALWAYS_IGNORED)

    def ignored(file: Path, is_dir: bool) -> bool:
        """By the last word of the .gitignore files from the top down, as git has it."""
        verdict = False
        for directory in reversed(file.relative_to(root).parents):
            spec = rules.get(root / directory)
            if spec is not None:
                name = file.relative_to(root / directory).as_posix()
                include = spec.check_file(f"{name}/" if is_dir else name).include
                verdict = verdict if include is None else include
        name = file.relative_to(root).as_posix()
        return verdict or always.match_file(f"{name}/" if is_dir else name)

    for directory, directories, files in os.walk(root):
        here = Path(directory)
        rules[here] = _rules(here / ".gitignore")
        directories[:] = sorted(each for each in directories if not ignored(here / each, True))
        for each in sorted(files):
            file = here / each
            name = file.relative_to(root).as_posix()
            if file.is_file() and not ignored(file, False) and not docker.match_file(name):
                yield name, file


def _rules(file: Path) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines(_lines(file))


def _docker_rules(file: Path) -> pathspec.PathSpec[pathspec.Pattern]:
    """Docker's patterns count from the top, and the last one that matches wins."""
    rooted = []
    for line in (each.strip() for each in _lines(file)):
        if line and not line.startswith("#"):
            sign, rest = ("!", line[1:]) if line.startswith("!") else ("", line)
            rooted.append(f"{sign}/{rest.strip().removeprefix('./').lstrip('/')}")
    return pathspec.PathSpec.from_lines("gitignore", rooted)


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines() if file.is_file() else []
