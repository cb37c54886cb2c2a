"""The mock's node: runs its pods as processes of this machine, and fires its CronJobs.

A container without a command is `piecework-worker`, or `piecework` if it is called producer, whatever its
image. Environment by value, from Secrets
and from the pod's name, ConfigMaps as a working directory, logs, termination messages and SIGTERM are as in
a cluster; nothing is isolated. A CronJob fires once, at once, as if for this minute.
"""

import base64
import contextlib
import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tests.kubernetes_mock import KubernetesMock, Object, Refusal


class Kubelet:
    """Use it in a `with`, inside that of the mock."""

    def __init__(self, mock: KubernetesMock) -> None:
        self._mock = mock
        self._processes: dict[str, _Process] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Kubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        for process in self._processes.values():
            process.close()

    def _run(self) -> None:
        while not self._closing.wait(0.05):
            with self._mock.changed:
                self._fire()
                pods = copy.deepcopy(self._mock.objects["pods"])
            for name, pod in pods.items():
                if name not in self._processes and pod["status"]["phase"] == "Running":
                    self._processes[name] = _Process(self._mock, pod)
            for name, process in list(self._processes.items()):
                if name not in pods:
                    process.terminate()
                code = process.poll()
                if code is None:
                    continue
                del self._processes[name]
                with contextlib.suppress(Refusal):  # the pod was deleted, and this was its end
                    self._mock.controller.exit(name, code, process.message())
                process.close()

    def _fire(self) -> None:
        for name, cron_job in self._mock.objects["cronjobs"].items():
            if cron_job["spec"].get("suspend") or "lastScheduleTime" in cron_job.setdefault("status", {}):
                continue
            time = datetime.now(UTC).replace(second=0, microsecond=0)
            cron_job["status"]["lastScheduleTime"] = f"{time:%Y-%m-%dT%H:%M:%SZ}"
            template = copy.deepcopy(cron_job["spec"]["jobTemplate"])
            meta = template.setdefault("metadata", {}) | {
                "name": f"{name}-{int(time.timestamp()) // 60}",
                "annotations": {"batch.kubernetes.io/cronjob-scheduled-timestamp": f"{time:%Y-%m-%dT%H:%M:%SZ}"},
                "ownerReferences": [{"kind": "CronJob", "name": name, "uid": cron_job["metadata"]["uid"]}],
            }
            self._mock.create("jobs", {"metadata": meta, "spec": template["spec"]}, {})


class _Process:
    """One pod."""

    def __init__(self, mock: KubernetesMock, pod: Object) -> None:
        self._mock, self._pod = mock, pod["metadata"]["name"]
        self._directory = Path(tempfile.mkdtemp(prefix="pw-pod-"))
        self._last_words = self._directory / "termination-log"
        self._last_words.touch()
        container = pod["spec"]["containers"][0]
        module = "piecework_producer.cli" if container["name"] == "producer" else "piecework_worker.main"
        given = [*container.get("command", [sys.executable, "-m", module]), *container.get("args", [])]
        self._process = subprocess.Popen(
            [argument.replace("$$", "$") for argument in given],
            cwd=self._mounted(mock, pod),
            env=self._environment(mock, pod, container),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """The exit code as a kubelet tells it, when all that the process wrote has been read."""
        code = self._process.poll()
        if code is None or self._reader.is_alive():
            return None
        return code if code >= 0 else 128 - code

    def message(self) -> str:
        return self._last_words.read_text() if self._last_words.exists() else ""

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._mock.log(self._pod, line.rstrip("\n"))

    def _environment(self, mock: KubernetesMock, pod: Object, container: Object) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("PIECEWORK_")}
        plain["PIECEWORK_TERMINATION_LOG"] = str(self._last_words)
        # Where a pod has its service account's token: the producer talks to the API server.
        plain["KUBECONFIG"] = str(mock.kubeconfig(self._directory))
        for each in container.get("env", []):
            value = self._value(mock, pod, each)
            if value is not None:
                plain[each["name"]] = value
        return plain

    def _value(self, mock: KubernetesMock, pod: Object, variable: Object) -> str | None:
        if "value" in variable:
            return str(variable["value"]).replace("$$", "$")
        source: Any = variable["valueFrom"]
        if "fieldRef" in source:
            _, label, rest = str(source["fieldRef"]["fieldPath"]).partition("metadata.labels['")
            return str(pod["metadata"]["labels"][rest.removesuffix("']")] if label else pod["metadata"]["name"])
        secret = source["secretKeyRef"]
        found: str | None = mock.objects["secrets"][secret["name"]]["stringData"].get(secret["key"])
        return found

    def _mounted(self, mock: KubernetesMock, pod: Object) -> Path:
        work = self._directory / "work"
        work.mkdir()
        for volume in pod["spec"].get("volumes", []):
            if "configMap" not in volume:
                continue
            content = mock.objects["configmaps"][volume["configMap"]["name"]]
            for item in volume["configMap"]["items"]:
                file = work / item["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                key = item["key"]
                text = content.get("data", {}).get(key)
                data = base64.b64decode(content["binaryData"][key]) if text is None else text.encode()
                file.write_bytes(data)
        return work
