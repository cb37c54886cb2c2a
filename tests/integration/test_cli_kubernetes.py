"""The verbs on Kubernetes, as a person types them: the mock API server, its pods as processes, a real Redis server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from piecework.ledger import Ledger
from piecework.ledger import runs as runs_on
from piecework.states import State
from tests.cli_fixture import ask
from tests.kubernetes_mock import KubernetesMock
from tests.kubernetes_mock_kubelet import Kubelet
from tests.server_fixture import ServerProcess, eventually

SLOW = "sleep 0.05 # {}"


@dataclass
class Shell:
    """A person's terminal: a kubeconfig, and the URL of a server."""

    mock: KubernetesMock
    server: ServerProcess
    environ: dict[str, str]

    def __call__(self, *words: str, code: int = 0, redis: bool = True) -> tuple[str, str]:
        """What the command wrote to standard output and to standard error; it must exit with `code`."""
        environ = {name: value for name, value in self.environ.items() if redis or name != "PIECEWORK_REDIS"}
        ended = ask(*words, environ=environ)
        assert ended.code == code, (words, ended)
        return ended.out, ended.err

    def submit(self, run: str, command: str = SLOW, items: int = 60, *more: str) -> Ledger:
        words = ["submit", "--exec", command, "--shell", "--range", f"0:{items}", "--run", run, "--on", "kubernetes"]
        output, _ = self(*words, "--image", "worker:1", "-p", "2", "--grace", "2", *more)
        assert output.strip() == run
        return Ledger(self.server.client(), run)

    def left(self) -> list[str]:
        return [name for kind in ("jobs", "pods", "configmaps") for name in self.mock.names(kind)]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with ServerProcess() as server, KubernetesMock("default") as mock, Kubelet(mock):
        for name in ("piecework-redis", "piecework-redis-producer"):
            mock.put("secrets", {"metadata": {"name": name}, "stringData": {"url": server.url}})
        environ = {
            "PIECEWORK_KUBECONFIG": str(mock.kubeconfig(tmp_path)),
            "PIECEWORK_REDIS": server.url,
            "PIECEWORK_STATE_DIR": str(tmp_path / "state"),
        }
        yield Shell(mock, server, environ)


def test_submit_wait_look_and_delete(shell: Shell) -> None:
    shell.submit("nightly", "echo {}", 40)
    _, said = shell("wait", "nightly")
    assert "succeeded" in said
    eventually(lambda: "Complete" in shell("status", "nightly")[0], timeout=30, message="the last pod has left")
    assert "40/40" in shell("status", "nightly")[0]
    record = json.loads(shell("status", "nightly", "--output", "json")[0])
    assert (record["state"], record["done"], record["jobs"][0]["status"]) == ("succeeded", 40, "Complete")
    assert "nightly" in shell("list", "--on", "kubernetes")[0]
    assert len(shell("results", "nightly")[0].splitlines()) == 40
    logs, _ = shell("logs", "nightly")
    assert all(line.startswith("piecework-nightly-") for line in logs.splitlines())
    assert "exit 0" in logs
    shell("delete", "nightly")
    assert shell.left() == []
    assert [key for key in shell.server.client().scan_iter() if b"nightly" in key] == []
    assert "not on this server" in shell("status", "nightly", code=2)[1]


def test_scale_pause_resume_and_cancel(shell: Shell) -> None:
    ledger = shell.submit("steered", SLOW, 2000)
    eventually(lambda: ledger.status().done > 0, timeout=30)
    shell("scale", "steered", "3")
    eventually(lambda: ledger.status().workers == 3, timeout=30)
    shell("pause", "steered")
    eventually(lambda: not shell.mock.names("pods"), timeout=30)
    assert "Suspended" in shell("status", "steered")[0]
    eventually(lambda: ledger.status().in_flight == 0, timeout=30, message="the workers have handed back")
    shell("resume", "steered")
    before = ledger.status().done
    eventually(lambda: ledger.status().done > before, timeout=30)
    shell("cancel", "steered", "--reason", "enough")
    assert shell.left() == []
    assert ledger.status().state is State.CANCELLED
    shell("wait", "steered", code=3)


def test_the_same_submission_again_has_one_job(shell: Shell) -> None:
    shell.submit("again", SLOW, 100)
    shell.submit("again", SLOW, 100)
    assert shell.mock.names("jobs") == ["piecework-again"]
    assert (
        "another specification"
        in shell(
            "submit", "--exec", "true", "--range", "0:5", "--run", "again", "--on", "kubernetes", "--image", "w", code=2
        )[1]
    )
    shell("wait", "again")


def test_a_handler_that_cannot_be_imported_fails_the_run(shell: Shell) -> None:
    shell("submit", "no_such:thing", "--range", "0:5", "--run", "bad", "--image", "worker:1")
    _, said = shell("wait", "bad", code=3)
    assert "no_such" in said
    assert Ledger(shell.server.client(), "bad").status().state is State.FAILED


def test_a_job_that_is_deleted_ends_the_wait(shell: Shell) -> None:
    ledger = shell.submit("gone", SLOW, 5000)
    eventually(lambda: ledger.status().done > 0, timeout=30)
    shell.mock.remove("jobs", "piecework-gone")
    assert "has no Job" in shell("wait", "gone", code=3)[1]
    assert "has no Job" in shell("status", "gone", code=1)[1]


def test_code_is_mounted(shell: Shell, tmp_path: Path) -> None:
    module = tmp_path / "my_tasks.py"
    module.write_text("def double(item):\n    return 2 * item\n")
    shell("submit", "my_tasks:double", "--range", "0:5", "--run", "coded", "--image", "w", "--code", str(module))
    shell("wait", "coded")
    results = [json.loads(line)["result"] for line in shell("results", "coded")[0].splitlines()]
    assert results == [0, 2, 4, 6, 8]
    shell("delete", "coded")
    assert shell.left() == []


def test_a_benchmark_has_a_job_for_each_run_and_leaves_nothing(shell: Shell, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    words = ["noop", "-p", "1,2", "--items", "200", "--repetitions", "1", "--on", "kubernetes", "--image", "worker:1"]
    output, said = shell("bench", *words, "--out", str(page), "--output", "json")
    assert "pods in namespace default" in said
    record = json.loads(output)
    assert [(each["parallelism"], each["repetitions"][0]["workers"]) for each in record["degrees"]] == [(1, 1), (2, 2)]
    assert [each["repetitions"][0]["done"] for each in record["degrees"]] == [200, 200]
    assert "image worker:1" in page.read_text(encoding="utf-8")
    assert shell.left() == []
    assert list(shell.server.client().scan_iter()) == []


def test_a_plain_job_of_a_fixed_count(shell: Shell) -> None:
    words = ["--run", "calculatepi", "--image", "perl:5.34.0", "--completions", "3", "-p", "2"]
    output, _ = shell("submit", *words, "--", "sh", "-c", "echo 3.14159", redis=False)
    assert output.strip() == "calculatepi"
    shell("wait", "calculatepi", "--on", "kubernetes", redis=False)
    assert "3/3" in shell("status", "calculatepi", "--on", "kubernetes", redis=False)[0]
    logs, _ = shell("logs", "calculatepi", "--on", "kubernetes", redis=False)
    assert [line.split()[1] for line in logs.splitlines()] == ["3.14159"] * 3
    shell("delete", "calculatepi", "--on", "kubernetes", redis=False)
    assert shell.left() == []
    refused = shell("submit", *words, "--restart-policy", "Always", "--", "true", code=2, redis=False)[1]
    assert "never be complete" in refused


def test_a_schedule_fires_and_its_producer_submits_the_run_of_that_time(shell: Shell) -> None:
    words = ["--exec", "echo $PIECEWORK_SCHEDULED_TIME # {}", "--shell", "--range", "0:3", "-p", "1"]
    shell("schedule", "hourly", "0 * * * *", *words, "--image", "w", "--producer-image", "p", "--catch-up")
    (row,) = json.loads(shell("schedule", "list", "-o", "json")[0])
    assert (row["name"], row["schedule"]) == ("hourly", "0 * * * *")
    client = shell.server.client()

    def runs() -> list[str]:
        return runs_on(client)

    (run,) = eventually(runs, timeout=60, message=lambda: shell.mock.names("pods"))
    shell("wait", run)
    times = {json.loads(line)["result"] for line in shell("results", run)[0].splitlines()}
    assert len(times) == 1
    assert times.pop().replace("-", "").replace(":", "").startswith(run.removeprefix("hourly-").upper())
    eventually(lambda: json.loads(shell("schedule", "list", "-o", "json")[0])[0]["last_recorded"], timeout=30)
    shell("schedule", "suspend", "hourly")
    shell("schedule", "resume", "hourly")
    shell("schedule", "trigger", "hourly")
    eventually(lambda: len(runs()) == 2, timeout=60, message=runs)
    shell("schedule", "delete", "hourly")
    assert "no schedules" in shell("schedule", "list")[1]
    assert "no schedule hourly" in shell("schedule", "trigger", "hourly", code=2)[1]


def test_no_cluster_and_no_server_are_said_in_one_line(shell: Shell, tmp_path: Path) -> None:
    shell.environ["PIECEWORK_KUBECONFIG"] = str(tmp_path / "none")
    error = shell("status", "--on", "kubernetes", code=2)[1]
    assert "kubeconfig" in error
    words = ["submit", "a:b", "--range", "0:1", "--image", "w"]
    assert "--redis" in shell(*words, code=2, redis=False)[1]
    assert "--image" in shell("submit", "a:b", "--range", "0:1", "--on", "kubernetes", code=2)[1]
    yaml, _ = shell(*words, "--run", "dry", "--dry-run", "client", redis=False)
    assert "kind: Job" in yaml
    assert "piecework-redis" in yaml
