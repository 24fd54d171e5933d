"""A small API server for the real Kubernetes client: what a cluster answers, without a cluster.

Faithful in what our code relies on: uid, resourceVersion, creationTimestamp; strict validation of what is created (422); 409 on a
second create and on a stale update; 404; label selectors; list, watch from a resourceVersion (410 when it is too old), merge patch,
the status subresource, pod logs; owner references are honoured on delete as the propagation policy says (a Job without one leaves its
pods behind). It has a Job controller that makes an Indexed Job's pods, takes them away while the Job is suspended, and ends the Job from
what its pods did; the tests play the kubelet (`set_pod`). `fake_kube_kinds.py` adds kinds that a cluster has only where they are installed.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KINDS = {
    ("v1", "pods"): "Pod",
    ("v1", "services"): "Service",
    ("v1", "configmaps"): "ConfigMap",
    ("batch/v1", "jobs"): "Job",
    ("apps/v1", "deployments"): "Deployment",
    ("autoscaling/v2", "horizontalpodautoscalers"): "HorizontalPodAutoscaler",
    ("policy/v1", "poddisruptionbudgets"): "PodDisruptionBudget",
    ("v1", "nodes"): "Node",
    ("v1", "persistentvolumeclaims"): "PersistentVolumeClaim",
    ("v1", "secrets"): "Secret",
    ("v1", "serviceaccounts"): "ServiceAccount",
}
IMAGE = "registry.example/actwright@sha256:" + "a" * 64  # of jobs; nothing is pulled here
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[\w.-]+/v\w+))(?:/namespaces/(?P<ns>[\w-]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[\w.-]+))?(?:/(?P<sub>status|log))?$"
)
_OF_JOB = "batch.kubernetes.io/job-name"
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class Refusal(Exception):
    """An answer that is not 2xx, as a Kubernetes `Status`."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.status = code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status |= {"message": message, "reason": reason, "code": code}


class FakeKube:
    """The server and its store. Use as a context manager; `url` is where it listens (loopback)."""

    def __init__(self, *, keep_events: int = 1000) -> None:
        self.kinds: dict[tuple[str, str], str] = dict(KINDS)
        self._objects: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._events: list[tuple[int, str, str, dict[str, Any]]] = []
        self._keep_events = keep_events
        self._version = 0
        self._changed = threading.Condition(threading.RLock())
        self.logs: dict[str, str] = {}
        self.requests: list[str] = []
        self.broken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_class())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FakeKube:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    # --- what a kubelet would do --------------------------------------------------------------------------------

    def pods(self, namespace: str = "actwright") -> list[str]:
        """Names of the pods that exist."""
        with self._changed:
            return sorted(key[3] for key in self._objects if key[:3] == ("v1", "pods", namespace))

    def set_pod(self, name: str, status: dict[str, Any], namespace: str = "actwright") -> None:
        """Report a pod's status; the Job's follows."""
        with self._changed:
            pod = self._get("v1", "pods", namespace, name)
            pod["status"] = status
            self._store("v1", "pods", namespace, pod, "MODIFIED")
            job = pod["metadata"]["labels"].get("batch.kubernetes.io/job-name", "")
            if ("batch/v1", "jobs", namespace, job) in self._objects:
                self._control_job(namespace, job)

    def run_pod(self, name: str, namespace: str = "actwright") -> None:
        """The pod runs."""
        self.set_pod(name, {"phase": "Running"}, namespace)

    def end_pod(self, name: str, code: int = 0, reason: str = "", namespace: str = "actwright") -> None:
        """The pod's only container ended."""
        ended = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error")}
        container = {"name": "train", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": ended}}
        self.set_pod(name, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}, namespace)

    def wait_for_pods(self, count: int, namespace: str = "actwright", seconds: float = 10.0) -> list[str]:
        """Wait until so many pods exist."""
        deadline = time.monotonic() + seconds
        while len(self.pods(namespace)) != count:
            assert time.monotonic() < deadline, f"{count} pods expected, there are {self.pods(namespace)}"
            time.sleep(0.02)
        return self.pods(namespace)

    def get(self, api: str, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """One object as it is now."""
        with self._changed:
            return self._get(api, plural, namespace, name)

    def furnish(self, namespace: str = "actwright") -> None:
        """What the base of infra/k8s applies and a training needs: the claim that several machines mount, and the account of its pods."""
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "actwright-store"}}
        self.create("v1", "persistentvolumeclaims", namespace, {**claim, "spec": {"accessModes": ["ReadWriteMany"]}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "actwright-train"}}
        self.create("v1", "serviceaccounts", namespace, account)

    # --- the API -------------------------------------------------------------------------------------------------

    def create(self, api: str, plural: str, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            identity = body.get("metadata", {})
            if not identity.get("name") and identity.get("generateName"):
                identity["name"] = identity["generateName"] + uuid.uuid4().hex[:5]
            name = identity.get("name", "")
            self._validate(api, plural, namespace, body, name)
            if (api, plural, namespace, name) in self._objects:
                raise Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists')
            made = copy.deepcopy(body)
            made["metadata"] |= {
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "generation": 1,
            }
            made["status"] = {}
            self._store(api, plural, namespace, made, "ADDED")
            self._control(plural, namespace, name)
            return self._get(api, plural, namespace, name)

    def update(self, api: str, plural: str, namespace: str, name: str, body: dict[str, Any], *, status: bool) -> dict[str, Any]:
        with self._changed:
            present = self._get(api, plural, namespace, name)
            told = body.get("metadata", {}).get("resourceVersion")
            if told and told != present["metadata"]["resourceVersion"]:
                raise Refusal(409, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified')
            if status:
                present["status"] = body.get("status", {})
            else:
                self._validate(api, plural, namespace, body, name)
                if plural == "jobs" and body["spec"].get("template") != present["spec"].get("template"):
                    raise Refusal(422, "Invalid", f'Job.batch "{name}" is invalid: spec.template: field is immutable')
                present = {**copy.deepcopy(body), "status": present["status"], "metadata": {**present["metadata"], **body["metadata"]}}
            stored = self._store(api, plural, namespace, present, "MODIFIED")
            self._control(plural, namespace, name)
            return stored

    def patch(self, api: str, plural: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            stored = self._store(api, plural, namespace, _merged(self._get(api, plural, namespace, name), body), "MODIFIED")
            self._control(plural, namespace, name)
            return stored

    def delete(self, api: str, plural: str, namespace: str, name: str, policy: str = "") -> dict[str, Any]:
        is_orphaning = policy == "Orphan" or (not policy and plural == "jobs")  # batch/v1 alone has that default
        with self._changed:
            gone = self._get(api, plural, namespace, name)
            uid = gone["metadata"]["uid"]
            del self._objects[(api, plural, namespace, name)]
            self._event("DELETED", plural, gone)
            for key, other in list(self._objects.items()):
                owners = other["metadata"].get("ownerReferences", [])
                if key not in self._objects or all(owner["uid"] != uid for owner in owners):
                    continue
                if is_orphaning:
                    other["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
                else:
                    self.delete(*key, policy=policy or "Background")
            return {"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}}

    def list(self, api: str, plural: str, namespace: str, selector: str) -> dict[str, Any]:
        with self._changed:
            items = [
                copy.deepcopy(o) for key, o in sorted(self._objects.items()) if key[:3] == (api, plural, namespace) and selects(selector, o)
            ]
            return {
                "kind": f"{self.kinds[(api, plural)]}List",
                "apiVersion": api,
                "metadata": {"resourceVersion": str(self._version)},
                "items": items,
            }

    def watch(self, plural: str, namespace: str, selector: str, since: str, seconds: float):
        """Yields events after `since` as they come."""
        seen = int(since or 0)
        deadline = time.monotonic() + seconds
        while True:
            with self._changed:
                oldest = self._events[0][0] if self._events else self._version + 1
                if seen + 1 < oldest and seen < self._version and since not in ("", "0"):
                    yield {"type": "ERROR", "object": Refusal(410, "Expired", f"too old resource version: {since}").status}
                    return
                fresh = [e for e in self._events if e[0] > seen and e[2] == plural and e[3]["metadata"].get("namespace", "") == namespace]
                seen = self._version
                if not fresh:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return
                    self._changed.wait(min(left, 0.1))
            yield from ({"type": kind, "object": document} for _, kind, _, document in fresh if selects(selector, document))

    def _get(self, api: str, plural: str, namespace: str, name: str) -> dict[str, Any]:
        try:
            return copy.deepcopy(self._objects[(api, plural, namespace, name)])
        except KeyError:
            raise Refusal(404, "NotFound", f'{plural} "{name}" not found') from None

    def _store(self, api: str, plural: str, namespace: str, document: dict[str, Any], event: str) -> dict[str, Any]:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        self._objects[(api, plural, namespace, document["metadata"]["name"])] = document
        self._event(event, plural, document)
        return copy.deepcopy(document)

    def _event(self, kind: str, plural: str, document: dict[str, Any]) -> None:
        if kind == "DELETED":
            self._version += 1
        self._events = [*self._events, (self._version, kind, plural, copy.deepcopy(document))][-self._keep_events :]
        self._changed.notify_all()

    def _validate(self, api: str, plural: str, namespace: str, body: dict[str, Any], name: str) -> None:
        import kubernetes_validate

        kind = self.kinds.get((api, plural))
        if kind is None or body.get("kind") != kind or body.get("apiVersion") != api:
            raise Refusal(400, "BadRequest", f"{body.get('apiVersion')}/{body.get('kind')} is not what {api}/{plural} holds")
        if not _DNS_NAME.fullmatch(name):
            raise Refusal(422, "Invalid", f'{kind} "{name}" is invalid: metadata.name: not a DNS name')
        if body["metadata"].get("namespace", namespace) != namespace:
            raise Refusal(400, "BadRequest", "the namespace of the object does not match the namespace of the request")
        if (api, plural) not in KINDS:
            return self._validate_installed(plural, body)
        try:
            kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            raise Refusal(422, "Invalid", f'{kind} "{name}" is invalid: {path}: {error.message}') from None

    # --- the Job controller ----------------------------------------------------------------------------------------

    def _control_job(self, namespace: str, name: str) -> None:
        job = self._get("batch/v1", "jobs", namespace, name)
        spec, status = job["spec"], job["status"]
        if any(c["type"] in ("Complete", "Failed") for c in status.get("conditions", [])):
            return
        ended = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        if spec.get("suspend"):
            for pod in [o for o in self._objects.values() if o["kind"] == "Pod" and o["metadata"]["labels"].get(_OF_JOB) == name]:
                self.delete("v1", "pods", namespace, pod["metadata"]["name"])
            held = {"active": 0, "succeeded": 0, "failed": 0}
            held["conditions"] = [{**ended, "type": "Suspended", "reason": "JobSuspended", "message": "Job suspended"}]
            if held != status:
                job["status"] = held
                self._store("batch/v1", "jobs", namespace, job, "MODIFIED")
            return
        self._make_pods(namespace, job)
        pods = [
            o for o in self._objects.values() if any(r["uid"] == job["metadata"]["uid"] for r in o["metadata"].get("ownerReferences", []))
        ]
        phases = [pod["status"].get("phase") for pod in pods if pod["kind"] == "Pod"]
        new = {
            "active": sum(p in ("Pending", "Running") for p in phases),
            "succeeded": phases.count("Succeeded"),
            "failed": phases.count("Failed"),
        }
        per_index = "backoffLimitPerIndex" in spec
        if (new["failed"] > spec.get("backoffLimit", 6) and not per_index) or (per_index and self._lost_index(job)):
            what = "has exceeded the specified maximal number of failed indexes" if per_index else "has reached the specified backoff limit"
            told = {**ended, "reason": "MaxFailedIndexesExceeded" if per_index else "BackoffLimitExceeded", "message": f"Job {what}"}
            new["conditions"] = [{**told, "type": "FailureTarget"}, {**told, "type": "Failed"}]
        elif new["succeeded"] >= spec["completions"]:
            told = {**ended, "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
            new["conditions"] = [{**told, "type": "SuccessCriteriaMet"}, {**told, "type": "Complete"}]
        if new != status:
            job["status"] = new
            self._store("batch/v1", "jobs", namespace, job, "MODIFIED")
            self._job_changed(namespace, job)

    def _control(self, plural: str, namespace: str, name: str) -> None:
        """Let the controller of a kind look at one object."""
        if plural == "jobs":
            self._control_job(namespace, name)

    def _job_changed(self, namespace: str, job: dict[str, Any]) -> None:
        """For controllers of installed kinds, which own Jobs."""

    def _validate_installed(self, plural: str, body: dict[str, Any]) -> None:
        """Of kinds that are not Kubernetes' own."""

    def discover(self, path: str) -> Any:
        """What the server tells of itself at a path that is no object's."""
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}
        named = {*self.kinds.items(), (("v1", "namespaces"), "Namespace"), (("v1", "events"), "Event")}
        groups: dict[str, str] = dict(api.split("/") for api, _ in self.kinds if "/" in api)
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            served = {name: {"groupVersion": f"{name}/{version}", "version": version} for name, version in groups.items()}
            return {"kind": "APIGroupList", "groups": [{"name": k, "versions": [v], "preferredVersion": v} for k, v in served.items()]}
        api = path.removeprefix("/api/").removeprefix("/apis/")
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        if resources := [
            {"name": plural, "singularName": "", "kind": kind, "verbs": verbs, "namespaced": plural not in ("namespaces", "nodes")}
            for (of, plural), kind in sorted(named)
            if of == api
        ]:
            return {"kind": "APIResourceList", "groupVersion": api, "resources": resources}
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def _lost_index(self, job: dict[str, Any]) -> bool:
        """Whether more of a Job's indexes than it allows have failed as often as each may."""
        failed: dict[str, int] = {}
        for one in self._objects.values():
            if one["kind"] == "Pod" and one["metadata"]["labels"].get(_OF_JOB) == job["metadata"]["name"]:
                index = one["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
                failed[index] = failed.get(index, 0) + (one["status"].get("phase") == "Failed")
        lost = [index for index, count in failed.items() if count > job["spec"]["backoffLimitPerIndex"]]
        return len(lost) > job["spec"].get("maxFailedIndexes", job["spec"]["completions"])

    def _make_pods(self, namespace: str, job: dict[str, Any]) -> None:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        of_index: dict[str, list[str]] = {}
        for one in self._objects.values():
            labels = one["metadata"].get("labels", {})
            if one["kind"] == "Pod" and labels.get("batch.kubernetes.io/controller-uid") == uid:
                of_index.setdefault(labels["batch.kubernetes.io/job-completion-index"], []).append(one["status"].get("phase", ""))
        retries = job["spec"].get("backoffLimitPerIndex", 0)
        for index in range(job["spec"]["completions"]):
            phases = of_index.get(str(index), [])
            if len(phases) > retries or any(phase != "Failed" for phase in phases):
                continue
            if sum(phase in ("Pending", "Running") for known in of_index.values() for phase in known) >= job["spec"]["parallelism"]:
                break
            of_index.setdefault(str(index), []).append("Pending")
            template = copy.deepcopy(job["spec"]["template"])
            labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/controller-uid": uid}
            labels["batch.kubernetes.io/job-completion-index"] = str(index)
            for container in template["spec"]["containers"]:
                container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "spec": {**template["spec"], "hostname": f"{name}-{index}"},
                "status": {"phase": "Pending"},
            }
            pod["metadata"] = {
                "name": f"{name}-{index}-{uuid.uuid4().hex[:5]}",
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "labels": {**template["metadata"].get("labels", {}), **labels},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}],
            }
            self._store("v1", "pods", namespace, pod, "ADDED")

    def _request_class(self) -> type[BaseHTTPRequestHandler]:
        kube = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                kube.requests.append(f"{self.command} {parts.path}")
                try:
                    self.route(parts.path, query, body)
                except Refusal as refusal:
                    self.send(refusal.code, refusal.status)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def route(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
                if kube.broken:
                    raise Refusal(503, "ServiceUnavailable", "the server is currently unable to handle the request")
                found = _PATH.match(path)
                api = (found["core"] or found["group"]) if found else ""
                if not found or (api, found["plural"]) not in kube.kinds:
                    self.send(200, kube.discover(path))
                    return
                plural, ns, name, sub = found["plural"], found["ns"] or "", found["name"], found["sub"]
                if self.command == "POST" and not name:
                    self.send(201, kube.create(api, plural, ns, body))
                elif self.command == "GET" and not name and query.get("watch") in ("true", "True", "1"):
                    seconds = float(query.get("timeoutSeconds", 30))
                    self.stream(kube.watch(plural, ns, query.get("labelSelector", ""), query.get("resourceVersion", ""), seconds))
                elif self.command == "GET" and not name:
                    self.send(200, kube.list(api, plural, ns, query.get("labelSelector", "")))
                elif self.command == "GET" and sub == "log":
                    kube._get(api, plural, ns, name)
                    lines = kube.logs.get(name, "").splitlines(keepends=True)
                    self.send(200, "".join(lines[-int(query.get("tailLines", len(lines) or 1)) :]))
                elif self.command == "GET":
                    self.send(200, kube._get(api, plural, ns, name))
                elif self.command == "PUT":
                    self.send(200, kube.update(api, plural, ns, name, body, status=sub == "status"))
                elif self.command == "PATCH":
                    self.send(200, kube.patch(api, plural, ns, name, body))
                elif self.command == "DELETE" and name:
                    self.send(200, kube.delete(api, plural, ns, name, query.get("propagationPolicy", "")))
                else:
                    raise Refusal(405, "MethodNotAllowed", f"{self.command} is not supported here")

            def send(self, code: int, document: Any) -> None:
                text = document if isinstance(document, str) else json.dumps(document)
                self.send_response(code)
                self.send_header("Content-Type", "text/plain" if isinstance(document, str) else "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def stream(self, events: Any) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for event in events:
                        line = json.dumps(event).encode() + b"\n"
                        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

        return Request


def selects(selector: str, document: dict[str, Any]) -> bool:
    """Whether the labels of `document` fit `a=b,c!=d,e,!f,g in (x,y)`."""
    labels = document["metadata"].get("labels", {})
    for part in filter(None, re.split(r",(?![^(]*\))", selector)):
        inside = re.fullmatch(r"\s*([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)\s*", part)
        if inside:
            values = {value.strip() for value in inside[3].split(",")}
            fits = (labels.get(inside[1]) in values) == (inside[2] == "in")
        elif "!=" in part:
            key, value = part.split("!=")
            fits = labels.get(key.strip()) != value.strip()
        elif "=" in part:
            key, value = re.split("==?", part)
            fits = labels.get(key.strip()) == value.strip()
        else:
            fits = (part.strip().lstrip("!") in labels) != part.strip().startswith("!")
        if not fits:
            return False
    return True


def _merged(onto: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(onto) if isinstance(onto, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
