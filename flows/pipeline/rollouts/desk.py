"""The desk: turn by turn it looks at the controller's requests and at Prefect's flow runs, and lets the runs follow the requests.

It keeps nothing that matters. A run is made once for each request, by Prefect's idempotency key; one that sleeps is woken where what it
saw, which stands in its pause key, is no longer so; one whose process is gone is put back among those that wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.deployment.fleet.controller import ask
from components.deployment.service_address import ServiceCredentials
from flows.pipeline.rollouts.situation import situation_of
from flows.platform.flow_runs import FlowRuns, RunsWithoutProcess

DEPLOYMENT = "requested-rollout"
SEPARATOR = " | "  # between what a run saw and what makes its pause key unique


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """api: of Prefect. url, shown: of the controller. plan, baseline: of every rollout that is started here; plan without a release."""

    api: str
    url: str
    shown: ServiceCredentials
    plan: Mapping[str, Any]
    baseline: str = ""
    lost: RunsWithoutProcess = field(default_factory=RunsWithoutProcess)

    def turn(self, *, is_first: bool = False) -> list[str]:
        """Look once; tells what was done. is_first: nothing runs flows yet, so a run that is said to be running is not.

        Raises `NotReady` where controller or Prefect do not answer; nothing is lost then.
        """
        asked = ask(self.url, "/v1/requests", self.shown)
        known = ask(self.url, "/v1/status", self.shown)["key_id"] if asked else ""
        of = FlowRuns(api=self.api, deployment=f"{DEPLOYMENT}/{DEPLOYMENT}")
        runs = {run["idempotency_key"]: run for run in of.all()}
        done: list[str] = []
        for one in asked:
            rollout = ask(self.url, f"/v1/rollouts/{one['rollout']}", self.shown) if one["rollout"] is not None else None
            found, name = situation_of(one, rollout), f"{one['model']}/{one['version']}"
            run = runs.get(f"{known}/{name}")
            if run is None and not found.step.is_over:
                of.make(f"{one['model']} {one['version']}", self._parameters(one), key=f"{known}/{name}")
                done.append(f"{name}: a flow run was made. {found.told}")
            elif run is not None and _sleeps(run) and saw(run) != found.key:
                of.resume(run)
                done.append(found.told)
        return [*done, *of.put_back_lost(list(runs.values()), none_runs=is_first, lost=self.lost.of(runs.values()))]

    def _parameters(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        parameters = {"url": self.url, "model": asked["model"], "version": asked["version"], "plan": dict(self.plan)}
        return parameters | {"baseline": self.baseline, "ca_file": str(self.shown.ca_file) if self.shown.ca_file else ""}


def _sleeps(run: Mapping[str, Any]) -> bool:
    return run["state_type"] == "PAUSED"


def saw(run: Mapping[str, Any]) -> str:
    """The key of the situation that a sleeping run saw last."""
    key = str((run["state"].get("state_details") or {}).get("pause_key") or "")
    return key.rpartition(SEPARATOR)[0]
