"""The desk: turn by turn it looks at the controller's requests and at Prefect's flow runs, and lets the runs follow the requests.

It keeps nothing. A run is made once for each request, by Prefect's idempotency key; one that sleeps is woken where what it saw, which
stands in its pause key, is no longer so; one whose process is gone is put back among those that wait.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.adapters.http import NoAnswerError, request
from components.deployment.fleet.controller import ask
from components.deployment.service_address import ServiceCredentials
from flows.pipeline.rollouts.situation import situation_of
from model_core.spec.errors import NotReady

DEPLOYMENT = "requested-rollout"
SEPARATOR = " | "  # between what a run saw and what makes its pause key unique
_GONE = frozenset({"PENDING", "RUNNING", "CRASHED"})
_PAGE = 200
_AGAIN_S, _MOST_AGAIN_S = 2.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """api: of Prefect. url, shown: of the controller. plan, baseline: of every rollout that is started here; plan without a release."""

    api: str
    url: str
    shown: ServiceCredentials
    plan: Mapping[str, Any]
    baseline: str = ""

    def turn(self, *, is_first: bool = False) -> list[str]:
        """Look once; tells what was done. is_first: nothing runs flows yet, so a run that is said to be running is not.

        Raises `NotReady` where controller or Prefect do not answer; nothing is lost then.
        """
        asked = ask(self.url, "/v1/requests", self.shown)
        known = ask(self.url, "/v1/status", self.shown)["key_id"] if asked else ""
        deployment = self._ask("GET", f"/deployments/name/{DEPLOYMENT}/{DEPLOYMENT}")["id"]
        runs = {run["idempotency_key"]: run for run in self._runs(deployment)}
        done: list[str] = []
        for one in asked:
            rollout = ask(self.url, f"/v1/rollouts/{one['rollout']}", self.shown) if one["rollout"] is not None else None
            found, name = situation_of(one, rollout), f"{one['model']}/{one['version']}"
            run = runs.get(f"{known}/{name}")
            if run is None and not found.step.is_over:
                self._make(deployment, one, f"{known}/{name}")
                done.append(f"{name}: a flow run was made. {found.told}")
            elif run is not None and _sleeps(run) and saw(run) != found.key:
                self._ask("POST", f"/flow_runs/{run['id']}/resume", {})
                done.append(found.told)
        for run in runs.values():
            if run["state_type"] == "CRASHED" or (is_first and run["state_type"] in _GONE):
                self._put_back(run)
                done.append(f"{run['name']}: its process ended, it is run again")
        return done

    def _runs(self, deployment: str) -> Sequence[Mapping[str, Any]]:
        """The runs that are not over, and the newest of those that are: a request has one run for all time."""
        found: list[Mapping[str, Any]] = []
        wanted = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "limit": _PAGE, "sort": "START_TIME_DESC"}
        while page := self._ask("POST", "/flow_runs/filter", {**wanted, "offset": len(found)}):
            found += page
            if len(page) < _PAGE:
                break
        return found

    def _make(self, deployment: str, asked: Mapping[str, Any], key: str) -> None:
        parameters = {"url": self.url, "model": asked["model"], "version": asked["version"], "plan": dict(self.plan)}
        parameters |= {"baseline": self.baseline, "ca_file": str(self.shown.ca_file) if self.shown.ca_file else ""}
        body = {"name": f"{asked['model']} {asked['version']}", "parameters": parameters, "idempotency_key": key}
        self._ask("POST", f"/deployments/{deployment}/create_flow_run", {**body, "state": {"type": "SCHEDULED"}})

    def _put_back(self, run: Mapping[str, Any]) -> None:
        """Where a run ends again and again, it waits longer each time."""
        wait_s = min(_AGAIN_S * 2 ** min(int(run["run_count"]), 16), _MOST_AGAIN_S)
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=wait_s)
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": at.isoformat()}}
        self._ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        try:
            reply = request(method, f"{self.api}{path}", timeout_s=20.0, headers={"Content-Type": "application/json"}, body=content)
        except NoAnswerError as error:
            raise NotReady(f"Prefect does not answer at {self.api} ({error.reason}). Fix: start its server again") from error
        if not reply.ok:
            raise NotReady(f"Prefect answered {reply.status} to {method} {path}: {reply.body[:200]!r}. Fix: see its log")
        return reply.json()


def _sleeps(run: Mapping[str, Any]) -> bool:
    return run["state_type"] == "PAUSED"


def saw(run: Mapping[str, Any]) -> str:
    """The key of the situation that a sleeping run saw last."""
    key = str((run["state"].get("state_details") or {}).get("pause_key") or "")
    return key.rpartition(SEPARATOR)[0]
