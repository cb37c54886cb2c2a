"""The e2e suite itself, on the mock with its pods as processes: real ledger, real workers, no cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kubernetes_mock import KubernetesMock
from tests.kubernetes_mock_kubelet import Kubelet
from tests.server_fixture import ServerProcess

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["test_kubernetes_runs.py", "test_kubernetes_schedules.py"])
def test_the_suite_for_clusters(part: str, tmp_path: Path) -> None:
    with ServerProcess() as server, KubernetesMock("default") as mock, Kubelet(mock):
        environment = os.environ | {
            "PIECEWORK_E2E_KUBECONFIG": str(mock.kubeconfig(tmp_path)),
            "PIECEWORK_E2E_IMAGE": "piecework-worker:test",
            "PIECEWORK_E2E_REDIS_URL": server.url,
            "PIECEWORK_E2E_ITEM_SECONDS": "0.05",
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "e2e",
            "-p",
            "no:cacheprovider",
            f"tests/e2e/{part}",
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-8000:]
        assert " passed" in done.stdout
        assert mock.names("jobs") == mock.names("pods") == mock.names("configmaps") == []
