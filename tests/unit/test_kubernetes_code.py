"""Packing code: what goes in, what stays out, and that what is mounted is what was packed."""

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from piecework.errors import UsageError
from piecework_producer.kubernetes_code import MOST_BYTES, MOST_FILES, CodeBundle, pack


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def paths(bundle: CodeBundle) -> list[str]:
    return [file.path for file in bundle.files]


def test_a_module_a_directory_and_a_package(tmp_path: Path) -> None:
    tree(tmp_path, {"tasks.py": "x", "pkg/__init__.py": "", "pkg/sub/mod.py": "y", "data.csv": "1"})
    assert paths(pack(tmp_path / "tasks.py", "r")) == ["tasks.py"]
    assert paths(pack(tmp_path, "r")) == ["data.csv", "pkg/__init__.py", "pkg/sub/mod.py", "tasks.py"]
    assert paths(pack(tmp_path / "pkg", "r")) == ["pkg/__init__.py", "pkg/sub/mod.py"]


def test_what_git_ignores_stays_out(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            ".gitignore": "*.log\n/build/\n!keep.log\nsecret*\n",
            "a.py": "",
            "a.log": "",
            "keep.log": "",
            "build/x.py": "",
            "src/build/y.py": "",
            "src/.gitignore": "z.py\n!secret-not.txt\n",
            "src/z.py": "",
            "src/secret-not.txt": "",
            "secret.txt": "",
            "__pycache__/a.pyc": "",
        },
    )
    packed = paths(pack(tmp_path, "r"))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listed = subprocess.run(
        [
            "git",
            "-C",
            str(tmp_path),
            "ls-files",
            "--others",
            "--exclude-standard",
            "--exclude",
            "__pycache__",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert packed == sorted(listed.split())
    assert paths(pack(tmp_path, "r")) == packed, ".git itself stays out"


def test_what_docker_ignores_stays_out(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            ".dockerignore": "*\n!app/\n!main.py\napp/tests\n",
            "main.py": "",
            "app/a.py": "",
            "app/tests/t.py": "",
            "x": "",
        },
    )
    assert paths(pack(tmp_path, "r")) == ["app/a.py", "main.py"]


def test_the_volume_gives_back_what_was_packed(tmp_path: Path) -> None:
    tree(tmp_path, {"a/b.py": "ü\n", "run.sh": "#!/bin/sh\n", "empty.py": ""})
    (tmp_path / "bin").write_bytes(b"\xff\x00\x01")
    (tmp_path / "nul").write_bytes(b"a\0b")
    (tmp_path / "run.sh").chmod(0o755)
    bundle = pack(tmp_path, "r")
    manifest: Any = bundle.manifest()
    assert manifest["immutable"] is True
    assert manifest["metadata"]["name"] == bundle.name
    content = {key: text.encode() for key, text in manifest["data"].items()}
    content |= {key: base64.b64decode(text) for key, text in manifest["binaryData"].items()}
    items: Any = bundle.items()
    mounted = {item["path"]: content[item["key"]] for item in items}
    assert mounted == {file.path: file.data for file in bundle.files}
    assert {item["path"]: item["mode"] for item in items}["run.sh"] == 0o555
    assert all(len(key) <= 253 for key in content)


def test_the_name_follows_the_content(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "1"})
    before = pack(tmp_path, "r").name
    assert pack(tmp_path, "r").name == before
    (tmp_path / "a.py").chmod(0o755)
    assert pack(tmp_path, "r").name != before
    assert len(pack(tmp_path, "r" * 48).name) <= 253


def test_too_much_code_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x" * (MOST_BYTES + 1))
    with pytest.raises(UsageError, match=r"model\.bin \(1,048,577\).*Put it into an image instead: FROM"):
        pack(tmp_path, "r")
    (tmp_path / "model.bin").unlink()
    for number in range(MOST_FILES + 1):
        (tmp_path / f"f{number}").touch()
    with pytest.raises(UsageError, match="1,001 files"):
        pack(tmp_path, "r")


def test_no_code(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        pack(tmp_path / "none", "r")
    (tmp_path / ".gitignore").write_text("*\n")
    with pytest.raises(UsageError, match="nothing in it"):
        pack(tmp_path, "r")


@pytest.mark.parametrize("link", ["out.py", "sub/out.py"])
@pytest.mark.parametrize("target", ["relative", "absolute"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, link: str, target: str) -> None:
    tree(tmp_path, {"secret/key": "hunter2", "code/a.py": "", "code/sub/b.py": ""})
    code = tmp_path / "code"
    where = tmp_path / "secret" / "key"
    relative = os.path.relpath(where, (code / link).parent)
    (code / link).symlink_to(where if target == "absolute" else relative)
    with pytest.raises(UsageError, match="is a link that leads out of it, to /") as caught:
        pack(code, "r")
    assert "hunter2" not in str(caught.value)
    (code / ".gitignore").write_text("out.py\n")
    assert paths(pack(code, "r")) == [".gitignore", "a.py", "sub/b.py"]


def test_links_within_and_to_directories(tmp_path: Path) -> None:
    """A link to a file of the code is that file; one to a directory is not followed, wherever it leads."""
    tree(tmp_path, {"elsewhere/key": "hunter2", "code/a.py": "x"})
    code = tmp_path / "code"
    (code / "same.py").symlink_to("a.py")
    (code / "dir").symlink_to(tmp_path / "elsewhere")
    (code / "round").symlink_to(".")
    (code / "broken").symlink_to("nowhere")
    os.mkfifo(code / "pipe")
    assert [(file.path, file.data) for file in pack(code, "r").files] == [("a.py", b"x"), ("same.py", b"x")]


@pytest.mark.parametrize("name", [b"\xff.py", b"a\nb.py", b"..data"])
def test_names_that_cannot_be_mounted_are_refused(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(UsageError, match="cannot be mounted under the name"):
        pack(tmp_path, "r")


def test_every_path_that_is_mounted_stays_below_the_mount(tmp_path: Path) -> None:
    tree(tmp_path, {"a.py": "", "pkg/__init__.py": "", "pkg/...odd": "", "pkg/-x": "", "pkg/~root": ""})
    for item in pack(tmp_path, "r").items():
        path = Path(str(item["path"]))
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert "/" not in str(item["key"])
