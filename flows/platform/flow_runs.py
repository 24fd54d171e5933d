"""The flow runs of one deployment, as Prefect's API tells of them: made once, resumed, and put back where their process is gone."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.http import NoAnswerError, request
from model_core.spec.errors import NotReady

_GONE = frozenset({"PENDING", "RUNNING", "CRASHED"})
_PAGE = 200
_AGAIN_S, _MOST_AGAIN_S = 2.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRuns:
    """api: of Prefect. deployment: its full name, "flow/deployment". All methods raise `NotReady` where Prefect does not answer."""

    api: str
    deployment: str

    def deployment_id(self) -> str:
        """The id under which Prefect knows the deployment."""
        return str(self._ask("GET", f"/deployments/name/{self.deployment}")["id"])

    def all(self) -> Sequence[Mapping[str, Any]]:
        """The runs, those that are not over first, then the newest."""
        found: list[Mapping[str, Any]] = []
        wanted = {"flow_runs": {"deployment_id": {"any_": [self.deployment_id()]}}, "limit": _PAGE, "sort": "START_TIME_DESC"}
        while page := self._ask("POST", "/flow_runs/filter", {**wanted, "offset": len(found)}):
            found += page
            if len(page) < _PAGE:
                break
        return found

    def make(self, name: str, parameters: Mapping[str, Any], *, key: str) -> None:
        """One run for all calls with this key; the parameters of the first call count."""
        body = {"name": name, "parameters": dict(parameters), "idempotency_key": key, "state": {"type": "SCHEDULED"}}
        self._ask("POST", f"/deployments/{self.deployment_id()}/create_flow_run", body)

    def resume(self, run: Mapping[str, Any]) -> None:
        """Let a suspended run go on."""
        self._ask("POST", f"/flow_runs/{run['id']}/resume", {})

    def put_back_lost(self, runs: Sequence[Mapping[str, Any]], *, none_runs: bool) -> list[str]:
        """Let those run again whose worker is gone; tells which. Where a run ends again and again, it waits longer each time.

        none_runs: no worker runs flows yet, so a run that is said to be running has lost its own. What is left of it is ended: a flow
        outlives a worker that is killed.
        """
        done = []
        for run in runs:
            if run["state_type"] == "CRASHED" or (none_runs and run["state_type"] in _GONE):
                _end_what_is_left(run["id"])
                wait_s = min(_AGAIN_S * 2 ** min(int(run["run_count"]), 16), _MOST_AGAIN_S)
                at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=wait_s)
                state = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": at.isoformat()}}
                self._ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
                done.append(f"{run['name']}: its process ended, it is run again")
        return done

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        try:
            reply = request(method, f"{self.api}{path}", timeout_s=20.0, headers={"Content-Type": "application/json"}, body=content)
        except NoAnswerError as error:
            raise NotReady(f"Prefect does not answer at {self.api} ({error.reason}). Fix: start its server again") from error
        if not reply.ok:
            raise NotReady(f"Prefect answered {reply.status} to {method} {path}: {reply.body[:200]!r}. Fix: see its log")
        return reply.json()


def _end_what_is_left(run: str) -> None:
    """End the processes of a flow run on this machine, and what they started."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"PREFECT__FLOW_RUN_ID={run}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
