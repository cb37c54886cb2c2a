"""The mock's Job controller, scheduler and kubelet: makes pods, ends them, counts, sets conditions.

It follows what the recordings show: pods are replaced until the first success, ignored failures never count,
a FailJob rule fails the Job at once, a suspended Job has no pods, a deletion in the foreground takes the
pods first. There is no back-off: what is to be replaced is replaced at once.
"""

import re
import threading
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.kubernetes_mock import KubernetesMock

Object = dict[str, Any]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class JobController:
    """Runs in a thread of its own, a moment after each change."""

    def __init__(self, mock: "KubernetesMock") -> None:
        self.mock = mock
        self.unschedulable = ""
        """A scheduler's message: pods stay Pending with it."""
        self.waiting: Object | None = None
        """A container's waiting state: pods stay Pending with it."""
        self.refused_pods = ""
        """Why admission refuses pods."""
        self.pod_warning = ""
        self.exit_on_term = 75
        self.stubborn = False
        """Pods ignore SIGTERM; `kill` ends them."""
        self._closing = False
        self._due = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def soon(self) -> None:
        with self.mock.changed:
            self._due = True
            self.mock.changed.notify_all()

    def close(self) -> None:
        self._closing = True
        self.soon()

    def _run(self) -> None:
        while not self._closing:
            with self.mock.changed:
                while not self._due and not self._closing:
                    self.mock.changed.wait(0.5)
                self._due = False
                for name in list(self.mock.objects["jobs"]):
                    self._reconcile(name)

    # --- what tests do

    def running(self, job: str = "") -> list[str]:
        """Names of running pods."""
        with self.mock.changed:
            pods = [each for each in self.mock.objects["pods"].values() if each["status"]["phase"] == "Running"]
            mine = [each for each in pods if job in ("", each["metadata"]["labels"].get("job-name"))]
            return sorted(each["metadata"]["name"] for each in mine)

    def exit(self, pod: str, code: int, message: str = "", reason: str = "") -> None:
        """Have a pod's container end."""
        with self.mock.changed:
            thing = self.mock.find("pods", pod)
            ended: Object = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error")}
            ended |= {"message": message} if message else {}
            ended |= {"startedAt": _now(), "finishedAt": _now()}
            thing["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
            thing["status"]["containerStatuses"][0] |= {"state": {"terminated": ended}, "ready": False}
            self.mock.put("pods", thing)
            self.soon()

    def evict(self, pod: str) -> None:
        """Have a pod disrupted."""
        with self.mock.changed:
            thing = self.mock.find("pods", pod)
            condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            thing["status"]["conditions"].append(condition)
            self.mock.put("pods", thing)
            self.exit(pod, 137)

    def kill(self, pod: str) -> None:
        """Take a pod away, as when it is deleted by hand."""
        self.mock.remove("pods", pod)
        self.soon()

    def finish(self, job: str, kind: str, reason: str, message: str) -> None:
        """Set a final condition."""
        with self.mock.changed:
            thing = self.mock.find("jobs", job)
            self._conditions(thing, "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget", reason, message)
            self._conditions(thing, kind, reason, message)
            self.mock.put("jobs", thing)

    # --- admission

    def validate(self, job: Object) -> None:
        from tests.kubernetes_mock import Refusal

        name, spec = job["metadata"]["name"], job["spec"]
        policy = spec["template"]["spec"].get("restartPolicy")
        problem = ""
        if policy not in ("Never", "OnFailure"):
            problem = 'Required value: valid values: "OnFailure", "Never"'
        elif policy == "OnFailure" and "podFailurePolicy" in spec:
            problem = 'Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'
        if problem:
            message = f'Job.batch "{name}" is invalid: spec.template.spec.restartPolicy: {problem}'
            raise Refusal(422, "Invalid", message, name=name, group="batch", kind="Job")

    def validate_change(self, old: Object, new: Object) -> None:
        from tests.kubernetes_mock import Refusal

        name = old["metadata"]["name"]
        for fixed in ("completions", "template", "podFailurePolicy", "completionMode"):
            if old["spec"].get(fixed) != new["spec"].get(fixed):
                value = new["spec"].get(fixed)
                message = f'Job.batch "{name}" is invalid: spec.{fixed}: Invalid value: {value}: field is immutable'
                raise Refusal(422, "Invalid", message, name=name, group="batch", kind="Job")

    def defaults(self, job: Object) -> None:
        spec = job["spec"]
        if "completions" not in spec and "parallelism" not in spec:
            spec["completions"] = 1
        spec.setdefault("parallelism", 1)
        spec.setdefault("backoffLimit", 6)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
        spec.setdefault("podReplacementPolicy", policy)
        job["metadata"]["uid"] = uid = str(uuid.uuid4())
        labels = {"controller-uid": uid, "job-name": job["metadata"]["name"]}
        labels |= {f"batch.kubernetes.io/{key}": value for key, value in labels.items()}
        template = spec["template"].setdefault("metadata", {})
        template["labels"] = template.get("labels", {}) | labels
        job["metadata"].setdefault("labels", dict(template["labels"]))
        job["status"] = {}

    def warning(self, job: Object) -> str:
        return f'299 - "{self.pod_warning}"' if self.pod_warning else ""

    # --- the controller

    def _reconcile(self, name: str) -> None:
        job = self.mock.find("jobs", name)
        spec, status, uid = job["spec"], job["status"], job["metadata"]["uid"]
        pods = [
            pod
            for pod in self.mock.objects["pods"].values()
            if pod["metadata"].get("ownerReferences", [{}])[0].get("uid") == uid
        ]
        alive = [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
        if "deletionTimestamp" in job["metadata"]:
            if not self.stubborn:
                for pod in pods:
                    self.mock.remove("pods", pod["metadata"]["name"])
                self.mock.remove("jobs", name)
            return
        if any(each["type"] in ("Complete", "Failed") for each in status.get("conditions", [])):
            return
        before = repr(job)
        verdicts = [self._verdict(spec, pod) for pod in pods]
        status["succeeded"] = sum(pod["status"]["phase"] == "Succeeded" for pod in pods)
        status["failed"] = verdicts.count("Count")
        status.setdefault("startTime", _now())
        completions = spec.get("completions")
        message = next((verdict for verdict in verdicts if verdict.startswith("Container ")), "")
        if spec["suspend"]:
            status.pop("startTime", None)
            self._conditions(job, "Suspended", "JobSuspended", "Job suspended")
            if not self.stubborn:
                for pod in alive:
                    self.mock.remove("pods", pod)
                alive = []
        elif any(each["type"] == "Suspended" for each in status.get("conditions", [])):
            status["conditions"] = [each for each in status["conditions"] if each["type"] != "Suspended"]
        if message or status["failed"] > spec["backoffLimit"]:
            text = message or "Job has reached the specified backoff limit"
            reason = "PodFailurePolicy" if message else "BackoffLimitExceeded"
            self._conditions(job, "FailureTarget", reason, text)
            if not self.stubborn:
                for pod in alive:
                    self.mock.remove("pods", pod)
                status["failed"] += len(alive)
                alive = []
                self._conditions(job, "Failed", reason, text)
        elif not spec["suspend"]:
            succeeded = status["succeeded"]
            reached = succeeded >= completions if completions is not None else succeeded > 0 and not alive
            if reached:
                text = "Reached expected number of succeeded pods"
                self._conditions(job, "SuccessCriteriaMet", "CompletionsReached", text)
                self._conditions(job, "Complete", "CompletionsReached", text)
                status["completionTime"] = _now()
            else:
                alive = self._make_pods(job, alive)
        status["active"], status["ready"] = len(alive), len(alive)
        if repr(job) != before:
            self.mock.put("jobs", job)

    def _make_pods(self, job: Object, alive: list[str]) -> list[str]:
        spec, status = job["spec"], job["status"]
        wanted = spec["parallelism"]
        if spec.get("completions") is not None:
            wanted = min(wanted, spec["completions"] - status["succeeded"])
        elif status["succeeded"]:
            wanted = min(wanted, len(alive))
        for pod in alive[wanted:]:
            if not self.stubborn:
                self.mock.remove("pods", pod)
        alive = alive if self.stubborn else alive[:wanted]
        for _ in range(wanted - len(alive)):
            name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
            if self.refused_pods:
                self.event(job, "FailedCreate", f'Error creating: pods "{name}" is forbidden: {self.refused_pods}')
                break
            self._make_pod(job, name)
            alive.append(name)
        return alive

    def event(self, job: Object, reason: str, message: str) -> None:
        meta = job["metadata"]
        involved = {"kind": "Job", "namespace": self.mock.namespace, "name": meta["name"], "uid": meta["uid"]}
        thing = {
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": "Warning" if reason.startswith("Failed") else "Normal",
            "count": 1,
            "lastTimestamp": _now(),
            "eventTime": None,
        }
        self.mock.put("events", thing)

    def _make_pod(self, job: Object, name: str) -> None:
        template, meta = job["spec"]["template"], job["metadata"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
        }
        container = template["spec"]["containers"][0]
        state: Object = {"running": {"startedAt": _now()}}
        phase, scheduled = "Running", {"type": "PodScheduled", "status": "True"}
        if self.unschedulable:
            phase, scheduled = "Pending", scheduled | {"status": "False", "reason": "Unschedulable"}
            scheduled["message"] = self.unschedulable
        elif self.waiting:
            phase, state = "Pending", {"waiting": self.waiting}
        statuses = [{"name": container["name"], "image": container["image"], "state": state, "lastState": {}}]
        self.mock.put(
            "pods",
            {
                "metadata": {
                    "name": name,
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [owner],
                },
                "spec": {
                    "containers": [container],
                    "restartPolicy": template["spec"]["restartPolicy"],
                    "volumes": template["spec"].get("volumes", []),
                    "nodeName": "lab-node-1",
                },
                "status": {
                    "phase": phase,
                    "conditions": [scheduled],
                    **({} if self.unschedulable else {"containerStatuses": statuses}),
                },
            },
        )
        self.event(job, "SuccessfulCreate", f"Created pod: {name}")

    def _verdict(self, spec: Object, pod: Object) -> str:
        """`""` for a pod that has not failed, `Ignore`, `Count`, or the message of a FailJob rule."""
        if pod["status"]["phase"] != "Failed":
            return ""
        code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        conditions = {each["type"] for each in pod["status"]["conditions"]}
        for index, rule in enumerate(spec.get("podFailurePolicy", {}).get("rules", [])):
            by_condition = any(each["type"] in conditions for each in rule.get("onPodConditions", []))
            if by_condition or code in rule.get("onExitCodes", {}).get("values", []):
                if rule["action"] != "FailJob":
                    return str(rule["action"])
                container = spec["template"]["spec"]["containers"][0]["name"]
                return (
                    f"Container {container} for pod {self.mock.namespace}/{pod['metadata']['name']} failed "
                    f"with exit code {code} matching FailJob rule at index {index}"
                )
        return "Count"

    def _conditions(self, job: Object, kind: str, reason: str, message: str) -> None:
        conditions = job["status"].setdefault("conditions", [])
        if not any(each["type"] == kind for each in conditions):
            conditions.append(
                {
                    "type": kind,
                    "status": "True",
                    "lastProbeTime": _now(),
                    "lastTransitionTime": _now(),
                    "reason": reason,
                    "message": re.sub(r"\s+", " ", message),
                }
            )
