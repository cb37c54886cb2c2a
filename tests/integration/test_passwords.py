"""The server's password: in the environment, in the Secret, and nowhere else that anybody may look."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli_fixture import Ended, Machine, command_line
from tests.kubernetes_mock import KubernetesMock
from tests.kubernetes_mock_kubelet import Kubelet
from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import WorkerProcess

PASSWORD = "s3same/ö p@ss"
FORMS = (PASSWORD, quote(PASSWORD, safe=""), ascii(PASSWORD)[1:-1], repr(PASSWORD.encode())[2:-1])


def tells(text: str) -> bool:
    return any(form in text for form in FORMS)


class Sampler:
    """Looks at the command lines of all processes until it is told to stop, as `ps` of a neighbour would."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.seen |= {command_line(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}

    def stop(self) -> set[str]:
        self._stop.set()
        self._thread.join()
        return self.seen


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        server.client().config_set("requirepass", PASSWORD)  # not on its command line
        yield server


def test_nowhere_but_in_the_environment_and_the_secret(server: ServerProcess, tmp_path: Path) -> None:
    sampler = Sampler()
    said: list[str] = []

    def note(ended: Ended, code: int | None = 0) -> None:
        said.append(ended.out + ended.err)
        assert code in (None, ended.code), ended

    try:
        with KubernetesMock("default") as mock, Kubelet(mock), Machine(tmp_path) as machine:
            mock.put("secrets", {"metadata": {"name": "piecework-redis"}, "stringData": {
                "url": f"unix://{server.socket}", "password": PASSWORD}})  # fmt: skip
            machine.environ["PIECEWORK_KUBECONFIG"] = str(mock.kubeconfig(tmp_path))
            machine.environ["PIECEWORK_REDIS"] = f"unix://:{quote(PASSWORD, safe='')}@{server.socket}"
            note(machine.run("run", "tasks:odd_fails", "--range", "0:6", "--run", "inurl"), 1)
            machine.environ["PIECEWORK_REDIS"] = f"unix://{server.socket}"
            machine.environ["PIECEWORK_REDIS_PASSWORD"] = PASSWORD
            note(machine.run("retry", "inurl"), 1)
            on_cluster = ("--on", "kubernetes", "--image", "worker:1", "-p", "1", "--grace", "2")
            note(machine.ask("submit", "--exec", "env # {}", "--shell", "--range", "0:2", "--run", "pods", *on_cluster))
            note(machine.ask("submit", "m:f", "--range", "0:2", "--run", "dry", *on_cluster, "--dry-run", "client"))
            note(machine.ask("wait", "pods", "--timeout", "30"))
            note(machine.ask("logs", "pods"))
            for verb in (("status",), ("status", "inurl", "-o", "json"), ("failures", "inurl", "--traceback"),
                         ("results", "pods"), ("logs", "inurl"), ("doctor",), ("delete", "pods")):  # fmt: skip
                note(machine.ask(*verb))
            for url in (f"unix://:wrong{quote(PASSWORD)}@{server.socket}", f"redis://:{PASSWORD}@h",
                        f"redis://{PASSWORD}", f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:1"):  # fmt: skip
                note(machine.ask("status", "--redis", url, PIECEWORK_REDIS_PASSWORD=""), 2)
            directory = tmp_path / "worker"
            directory.mkdir()
            lost = {"PIECEWORK_REDIS": f"unix://{tmp_path}/none", "PIECEWORK_REDIS_PASSWORD": PASSWORD}
            options = ["inurl", "--handler", "tasks:odd_fails", "--patience", "0"]
            assert WorkerProcess(options, directory, lost, machine.home).exit_code() == 75
            eventually(lambda: not mock.names("pods"))

            manifests = repr([asked.body for asked in mock.asked])
            assert "PIECEWORK_REDIS_PASSWORD" in manifests
            assert not tells(manifests)
            assert not tells(repr({kind: objects for kind, objects in mock.objects.items() if kind != "secrets"}))
            assert not tells(repr(mock.logs))
            assert "exit 0" in repr(mock.logs)
    finally:
        seen = sampler.stop()
    assert any("piecework_worker.main" in each for each in seen)
    assert not [each for each in seen if tells(each)]
    assert not [each for each in said if tells(each)]
    assert "PIECEWORK_IDEMPOTENCY_KEY" in "".join(said), "what a command of --exec has in its environment"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files if path.name.startswith("worker-")], "the logs of workers"
    assert not [path for path in files if tells(path.read_bytes().decode(errors="replace"))]
    client = server.client(password=PASSWORD)
    stored = [(key, client.dump(key)) for key in client.scan_iter()]
    assert stored
    assert not tells(repr(stored))
    assert os.environ.get("PIECEWORK_REDIS_PASSWORD") is None
