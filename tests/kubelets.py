"""The kubelets of a fake cluster whose machines are network namespaces: they start, watch and end the processes of its pods."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fake_kube import FakeKube

ROOT = Path(__file__).parents[1]
_NICENESS = 10
# its first process takes all others with it, as in a pod
_CONTAINER = ("unshare", "--mount", "--fork", "--pid", "--mount-proc", "--kill-child")


class Kubelets(threading.Thread):
    """A machine of the cluster for each namespace: starts each pod's command in that of its node, reports how it goes, keeps its log.

    The processes of a pod that was deleted are killed.
    """

    def __init__(self, kube: FakeKube, spaces: Sequence[str], folder: Path) -> None:
        super().__init__(daemon=True)
        self._kube, self._spaces, self._folder = kube, list(spaces), folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.1):
            pods = self._kube.pods()
            for name in pods:
                if name not in self.running:
                    self._start(name)
            for name, process in list(self.running.items()):
                if name not in pods:
                    end_group(process)
                    del self.running[name]
                elif process.poll() is not None:
                    self._kube.logs[name] = self.log(name).read_text()
                    code = process.returncode
                    self._kube.end_pod(name, code if code >= 0 else 128 - code)

    def log(self, pod: str) -> Path:
        """What a pod wrote."""
        return self._folder / f"{pod}.log"

    def _start(self, name: str) -> None:
        pod = self._kube.get("v1", "pods", "actwright", name)
        [container] = pod["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        command = list(container["command"])
        for variable, value in environment.items():
            command = [word.replace(f"$({variable})", value) for word in command]
        node = int(environment["JOB_COMPLETION_INDEX"])
        begun = self._first(pod["spec"].get("initContainers", []), node)
        space = self._spaces[node]
        nicer = max(0, _NICENESS - os.nice(0))
        with self.log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                ["ip", "netns", "exec", space, *_CONTAINER, "nice", "-n", str(nicer), "sh", "-c", begun, "sh", *command],
                env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._kube.run_pod(name)

    def _first(self, containers: Sequence[Any], node: int) -> str:
        """A line of a shell: the first containers, with a volume of the machine's own where they write, then its arguments."""
        lines = []
        for container in containers:
            own = self._folder / f"machine-{node}"
            own.mkdir(exist_ok=True)
            variables = [f"{entry['name']}={entry['value']}" for entry in container["env"] if "value" in entry]
            lines.append(shlex.join(["mount", "--bind", str(own), container["volumeMounts"][0]["mountPath"]]))
            lines.append(shlex.join(["env", *variables, *container["command"]]))
        return " && ".join([*lines, 'exec "$@"'])

    def stop(self) -> None:
        """End all of it."""
        self._stop_asked.set()
        self.join(10)
        for process in self.running.values():
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a pod's processes, as the loss of its machine does."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def kubeconfig(folder: Path, url: str) -> Path:
    """Of a cluster without accounts, as the fake API server is."""
    cluster = {"name": "c", "cluster": {"server": url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    document = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "c"}
    path = folder / "kube.yaml"
    path.write_text(json.dumps({**document, "users": [{"name": "u", "user": {}}]}))  # JSON is YAML
    return path
