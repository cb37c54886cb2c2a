"""An API server over real HTTP that answers as the recordings in `tests/data/kubernetes-recordings` do.

It keeps objects, resourceVersions and a history for watches, checks what a test may get wrong (names,
unknown fields, immutable fields, preconditions), and plays the Job controller (see `kubernetes_mock_jobs`).
Tests make it fail: `fail` for single answers, `drop_watches` for streams, `compact` for expired
resourceVersions, `forbid` for rights. It is a fake for tests: single-namespace thinking, no admission beyond
what is listed.
"""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kubernetes_mock_jobs import JobController
from tests.kubernetes_mock_tunnel import tunnel

RECORDINGS = Path(__file__).parent / "data" / "kubernetes-recordings"
Object = dict[str, Any]
KINDS = {
    "jobs": ("batch", "Job"),
    "cronjobs": ("batch", "CronJob"),
    "pods": ("", "Pod"),
    "events": ("", "Event"),
    "services": ("", "Service"),
    "configmaps": ("", "ConfigMap"),
    "secrets": ("", "Secret"),
    "serviceaccounts": ("", "ServiceAccount"),
    "namespaces": ("", "Namespace"),
    "roles": ("rbac.authorization.k8s.io", "Role"),
    "rolebindings": ("rbac.authorization.k8s.io", "RoleBinding"),
}
JOB_SPEC = """
    activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy
    manualSelector maxFailedIndexes parallelism podFailurePolicy podReplacementPolicy selector successPolicy
    suspend template ttlSecondsAfterFinished
"""
CRON_JOB_SPEC = """
    concurrencyPolicy failedJobsHistoryLimit jobTemplate schedule startingDeadlineSeconds
    successfulJobsHistoryLimit suspend timeZone
"""
_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/v1)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)
_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


def recording(name: str) -> Object:
    """One recording of a real control plane."""
    loaded: Object = json.loads((RECORDINGS / f"{name}.json").read_text())
    return loaded


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def plural(self) -> str:
        match = _PATH.fullmatch(self.path)
        return match["plural"] if match else ""


@dataclass
class Fault:
    """What to answer instead, so many times."""

    when: Callable[[Asked], bool]
    status: int | None = None
    """None: close the connection without an answer."""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    through: bool = False
    """After the delay, answer as usual."""
    after: bool = False
    """Do what was asked, then close the connection: the reply is lost."""
    times: int = 1


class Refusal(Exception):
    """An answer with a Status object."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": details} if details else {}),
            "code": code,
        }


class KubernetesMock:
    """Use it in a `with`. All of its state is guarded by `changed`, a condition that each change notifies."""

    def __init__(self, namespace: str = "rec") -> None:
        self.namespace = namespace
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[str, dict[str, Object]] = {plural: {} for plural in KINDS}
        self.objects["namespaces"][namespace] = {"metadata": {"name": namespace}}
        self.history: list[tuple[int, str, str, Object]] = []
        self.version = 100
        self.compacted = 0
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.token: str | None = None
        self.user = "system:serviceaccount:rec:nobody"
        self.forbidden: set[tuple[str, str]] = set()
        self.refused_jobs: str | None = None
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.ports: dict[int, tuple[str, int]] = {}
        """Where a pod's port is in truth, for port-forwards."""
        self.stream_generation = 0
        self.controller = JobController(self)
        handler = type("Handler", (_Handler,), {"mock": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "KubernetesMock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.drop_watches()
        self.controller.close()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, directory: Path, namespace: str | None = None, token: str = "secret-token") -> Path:
        """A kubeconfig file that leads here, with the context `mock`."""
        context = {"cluster": "mock", "user": "mock", "namespace": namespace or self.namespace}
        file = directory / "kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "mock",
                    "clusters": [{"name": "mock", "cluster": {"server": self.url}}],
                    "users": [{"name": "mock", "user": {"token": token}}],
                    "contexts": [{"name": "mock", "context": context}],
                }
            )
        )
        return file

    # --- what tests do to it

    def fail(self, status: int | None, *, method: str = "", plural: str = "", times: int = 1, **more: Any) -> None:
        """Answer the next requests that match with `status`, or with a closed connection (None)."""
        body = more.pop("body", {"kind": "Status", "message": f"mock {status}", "reason": "Mock", "code": status})

        def when(asked: Asked) -> bool:
            return asked.method.startswith(method) and (not plural or asked.plural == plural)

        self.faults.append(Fault(when, status, body, times=times, **more))

    def forbid(self, verb: str, plural: str) -> None:
        """Take a right away."""
        self.forbidden.add((verb, plural))

    def drop_watches(self) -> None:
        """Break all streams in the middle."""
        with self.changed:
            self.stream_generation += 1
            self.changed.notify_all()

    def compact(self) -> None:
        """Make all resourceVersions up to now too old for a watch."""
        with self.changed:
            self.version += 1
            self.compacted = self.version

    def log(self, pod: str, text: str) -> None:
        """Have a pod write a line."""
        with self.changed:
            self.logs.setdefault(pod, []).append((datetime.now(UTC).isoformat().replace("+00:00", "Z"), text))
            self.changed.notify_all()
        time.sleep(0.000_01)

    def names(self, plural: str) -> list[str]:
        with self.changed:
            return sorted(self.objects[plural])

    def object(self, plural: str, name: str) -> Object:
        with self.changed:
            return copy.deepcopy(self.objects[plural][name])

    def verbs(self, plural: str) -> list[str]:
        """The methods asked of a collection, watches as WATCH."""
        return ["WATCH" if "watch" in each.query else each.method for each in self.asked if each.plural == plural]

    # --- storage

    def put(self, plural: str, thing: Object, *, kind: str = "") -> Object:
        """Store a new or changed object, and tell watches."""
        with self.changed:
            self.version += 1
            group, object_kind = KINDS[plural]
            thing["kind"], thing["apiVersion"] = object_kind, f"{group}/v1" if group else "v1"
            meta = thing.setdefault("metadata", {})
            known = self.objects[plural].get(meta["name"])
            meta.setdefault("namespace", self.namespace)
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", now())
            meta["resourceVersion"] = str(self.version)
            self.objects[plural][meta["name"]] = thing
            event = kind or ("MODIFIED" if known is not None else "ADDED")
            self.history.append((self.version, event, plural, copy.deepcopy(thing)))
            self.changed.notify_all()
            return thing

    def remove(self, plural: str, name: str) -> None:
        """Delete an object at once, and what it owns."""
        with self.changed:
            thing = self.objects[plural].pop(name, None)
            if thing is None:
                return
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, "DELETED", plural, copy.deepcopy(thing)))
            for other in KINDS:
                for each in list(self.objects[other].values()):
                    owners = each["metadata"].get("ownerReferences", [])
                    if any(owner["uid"] == thing["metadata"]["uid"] for owner in owners):
                        self.remove(other, each["metadata"]["name"])
            self.changed.notify_all()

    # --- the API's verbs

    def create(self, plural: str, body: Object, query: dict[str, str]) -> Object:
        group, kind = KINDS[plural]
        full, name = f"{plural}.{group}" if group else plural, body["metadata"]["name"]
        _check_name(kind, name)
        if query.get("fieldValidation") == "Strict":
            _check_fields(kind, body)
        if plural == "jobs" and self.refused_jobs:
            message = f'{full} "{name}" is forbidden: {self.refused_jobs}'
            raise Refusal(403, "Forbidden", message, name=name, group=group, kind=plural)
        if name in self.objects[plural]:
            message = f'{full} "{name}" already exists'
            raise Refusal(409, "AlreadyExists", message, name=name, group=group, kind=plural)
        body = copy.deepcopy(body)
        if plural == "namespaces":
            self.namespace = name
        if plural == "cronjobs":
            body["status"] = {}
            body["spec"].setdefault("suspend", False)
            body["spec"]["jobTemplate"].setdefault("metadata", {})
        if plural == "jobs":
            self.controller.validate(body)
            self.controller.defaults(body)
        if query.get("dryRun"):
            return body | {"metadata": body["metadata"] | {"uid": str(uuid.uuid4())}}
        created = copy.deepcopy(self.put(plural, body))
        self.controller.soon()
        return created

    def patch(self, plural: str, name: str, body: Object) -> Object:
        old = self.find(plural, name)
        group = KINDS[plural][0]
        full = f"{plural}.{group}" if group else plural
        meta = body.get("metadata", {})
        uid = meta.get("uid", old["metadata"]["uid"])
        if uid != old["metadata"]["uid"]:
            message = f'{full} "{name}" is invalid: metadata.uid: Invalid value: "{uid}": field is immutable'
            raise Refusal(422, "Invalid", message, name=name, group=group, kind=plural)
        if meta.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            message = (
                f'Operation cannot be fulfilled on {full} "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
            raise Refusal(409, "Conflict", message, name=name, group=group, kind=plural)
        new = merge(old, body)
        if plural == "jobs":
            self.controller.validate_change(old, new)
        changed = copy.deepcopy(self.put(plural, new))
        self.controller.soon()
        return changed

    def delete(self, plural: str, name: str, body: Object) -> Object:
        old = self.find(plural, name)
        uid = body.get("preconditions", {}).get("uid")
        if uid and uid != old["metadata"]["uid"]:
            message = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise Refusal(409, "Conflict", message, name=name, kind=plural)
        if plural == "jobs" and body.get("propagationPolicy") == "Foreground":
            old["metadata"] |= {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
            marked = copy.deepcopy(self.put(plural, old))
            self.controller.soon()
            return marked
        self.remove(plural, name)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def find(self, plural: str, name: str) -> Object:
        group = KINDS[plural][0]
        if name not in self.objects[plural]:
            full = f"{plural}.{group}" if group else plural
            details = {"name": name, "kind": plural} | ({"group": group} if group else {})
            raise Refusal(404, "NotFound", f'{full} "{name}" not found', **details)
        return copy.deepcopy(self.objects[plural][name])


class _Handler(BaseHTTPRequestHandler):
    mock: KubernetesMock
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = Asked(self.command, unquote(parts.path), query, headers, json.loads(raw) if raw else None)
        mock = self.mock
        with mock.changed:
            mock.asked.append(asked)
            fault = next((each for each in mock.faults if each.when(asked)), None)
            if fault is not None:
                fault.times -= 1
                if fault.times <= 0:
                    mock.faults.remove(fault)
        if fault is not None:
            time.sleep(fault.delay_seconds)
            if not fault.through and not fault.after:
                if fault.status is None:
                    self.close_connection = True
                    return
                self._send(fault.status, fault.body, fault.headers)
                return
        try:
            answer = self._serve(asked)
        except Refusal as refusal:
            self._send(refusal.code, refusal.status)
            return
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return
        if fault is not None and fault.after:
            self.close_connection = True
            return
        if answer is not None:
            self._send(*answer)

    def _serve(self, asked: Asked) -> tuple[int, Any] | tuple[int, Any, dict[str, str]] | None:
        mock = self.mock
        if mock.token is not None and asked.headers.get("authorization") != f"Bearer {mock.token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if asked.path == "/version":
            return 200, {"gitVersion": "v1.36.2"}
        match = _PATH.fullmatch(asked.path)
        if match is None or match["plural"] not in KINDS:
            return 404, {"message": "404 page not found"}
        plural, name, sub = match["plural"], match["name"], match["sub"]
        verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(asked.method, "get" if name else "list")
        verb = "watch" if asked.query.get("watch") else verb
        if (verb, plural) in mock.forbidden:
            group = KINDS[plural][0]
            full = f"{plural}.{group}" if group else plural
            raise Refusal(
                403,
                "Forbidden",
                f'{full} is forbidden: User "{mock.user}" cannot {verb} resource "{plural}" '
                f'in API group "{group}" in the namespace "{match["namespace"]}"',
                group=group,
                kind=plural,
            )
        if match["namespace"] and match["namespace"] != mock.namespace and asked.method == "POST":
            raise Refusal(404, "NotFound", f'namespaces "{match["namespace"]}" not found')
        if sub == "log":
            self._stream(_log_lines(mock, name, asked.query.get("follow") == "true", asked.query))
            return None
        if sub == "portforward":
            self.close_connection = True
            tunnel(self, mock.ports)
            return None
        if verb == "watch":
            self._stream(_watch_lines(mock, plural, asked.query))
            return None
        with mock.changed:
            if verb == "create":
                created = mock.create(plural, asked.body, asked.query)
                warning = mock.controller.warning(created) if plural == "jobs" else ""
                return 201, created, {"Warning": warning} if warning else {}
            if verb == "patch":
                if "apply-patch" in asked.headers.get("content-type", "") and name not in mock.objects[plural]:
                    return 201, mock.create(plural, asked.body, asked.query), {}
                return 200, mock.patch(plural, name, asked.body), {}
            if verb == "delete":
                return 200, mock.delete(plural, name, asked.body or {}), {}
            if verb == "get":
                return 200, mock.find(plural, name), {}
            items = [each for each in mock.objects[plural].values() if selected(each, asked.query)]
            kind = f"{KINDS[plural][1]}List"
            return 200, {"kind": kind, "metadata": {"resourceVersion": str(mock.version)}, "items": items}, {}

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _stream(self, lines: Iterator[bytes | None]) -> None:
        """Chunked; None breaks the connection in the middle."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            if line is None:
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _watch_lines(mock: KubernetesMock, plural: str, query: dict[str, str]) -> Iterator[bytes | None]:
    at = int(query.get("resourceVersion") or mock.version)
    deadline = time.monotonic() + float(query.get("timeoutSeconds", 300))
    generation = mock.stream_generation
    if at < mock.compacted:
        status = recording("watch-too-old-410")["response"]["body"]["object"]
        yield json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        return
    while True:
        with mock.changed:
            fresh = [each for each in mock.history if each[0] > at and each[2] in (plural, "")]
            if not fresh and mock.stream_generation == generation:
                mock.changed.wait(max(0.0, min(0.5, deadline - time.monotonic())))
        if mock.stream_generation != generation:
            yield None
            return
        for version, kind, _, thing in fresh:
            at = version
            if selected(thing, query) or kind == "BOOKMARK":
                yield json.dumps({"type": kind, "object": thing}).encode() + b"\n"
        if time.monotonic() > deadline:
            return


def _log_lines(mock: KubernetesMock, pod: str, following: bool, query: dict[str, str]) -> Iterator[bytes | None]:
    with mock.changed:
        phase = mock.find("pods", pod)["status"]["phase"]
        if phase == "Pending":
            message = f'container "worker" in pod "{pod}" is waiting to start: ContainerCreating'
            raise Refusal(400, "BadRequest", message)
        skip = max(0, len(mock.logs.get(pod, [])) - int(query.get("tailLines", 1_000_000)))
    return _log_rest(mock, pod, following, query.get("sinceTime", "")[:19], skip)


def _log_rest(mock: KubernetesMock, pod: str, following: bool, since: str, sent: int) -> Iterator[bytes | None]:
    generation = mock.stream_generation
    while True:
        with mock.changed:
            lines = mock.logs.get(pod, [])[sent:]
            running = mock.objects["pods"].get(pod, {}).get("status", {}).get("phase") == "Running"
            if not lines and following and running and mock.stream_generation == generation:
                mock.changed.wait(0.5)
                continue
        if mock.stream_generation != generation:
            yield None
            return
        for stamp, text in lines:
            sent += 1
            if stamp[:19] >= since:
                yield f"{stamp} {text}\n".encode()
        if not following or not running:
            return


def selected(thing: Object, query: dict[str, str]) -> bool:
    """By label and field selectors, as far as piecework uses them."""
    labels = thing.get("metadata", {}).get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        found: Any = thing
        for key in path.split("."):
            found = found.get(key, "") if isinstance(found, dict) else ""
        if str(found) != value:
            return False
    return True


def merge(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(_NAME, name):
        rule = recording("job-bad-name-422")["response"]["body"]["message"].partition(": metadata.name: ")[2]
        message = f'{kind}.batch "{name}" is invalid: metadata.name: {rule.replace("Bad_Name", name)}'
        raise Refusal(422, "Invalid", message, name=name, group="batch", kind=kind)


def _check_fields(kind: str, body: Object) -> None:
    known = {"Job": JOB_SPEC, "CronJob": CRON_JOB_SPEC}.get(kind)
    unknown = [f'unknown field "spec.{key}"' for key in body.get("spec", {}) if known and key not in known.split()]
    if unknown:
        problem = f"strict decoding error: {', '.join(unknown)}"
        message = f'{kind} in version "v1" cannot be handled as a {kind}: {problem}'
        raise Refusal(400, "BadRequest", message)
