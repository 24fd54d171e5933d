"""The flow of one requested rollout: wait for a person, start it once, wait for its end. Run as a module it serves the deployment.

A run does not stay in memory: it looks, does what is to be done, and suspends itself until the desk (`desk.py`) sees something else. So a
run outlives Prefect's server, its worker and this machine. The truth is the controller's: who approved, which rollout was started. What a
run that is killed has done is found there by the next attempt, and started again is nothing twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, serve
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.deployments.runner import RunnerDeployment
from prefect.flow_runs import suspend_flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.types.entrypoint import EntrypointType

from components.deployment.fleet.controller import OrderRefused, ask, order
from components.deployment.service_address import ServiceCredentials
from flows.pipeline.rollouts.desk import DEPLOYMENT, SEPARATOR
from flows.pipeline.rollouts.situation import NO_ANSWER, Situation, Step, situation_of
from flows.platform.flow_runs import crashed_where_prefect_is_away
from flows.platform.settings import load_settings
from model_core.spec.errors import NotReady, TrackingError

_ENDED = {Step.PASSED: Completed, Step.FAILED: Failed, Step.DECLINED: Cancelled}


@flow(name=DEPLOYMENT, persist_result=False)
def requested_rollout(url: str, model: str, version: str, plan: Mapping[str, Any], baseline: str = "", ca_file: str = "") -> State[Any]:
    """Carry a request of the controller at `url` through. plan: document of a rollout's plan, without the release; baseline: as of any
    rollout; ca_file: who may sign the controller's certificate. Its token comes from the environment alone. A run outlives the address at
    which it was made: where the process that runs it was told another one (`fleet_url`), that counts."""
    settings = load_settings()
    if settings.fleet_url:
        url, ca_file = settings.fleet_url, settings.fleet_ca_file
    token = settings.token.get_secret_value().strip()
    shown = ServiceCredentials(token=token, ca_file=Path(ca_file) if ca_file else None, timeout_s=10.0)
    body = {"model": model, "version": version, "plan": dict(plan), "baseline": baseline}
    with crashed_where_prefect_is_away(settings):
        return _carried_through(url, body, shown)


def _carried_through(url: str, body: Mapping[str, Any], shown: ServiceCredentials) -> State[Any]:
    """Look, and do what is to be done, until it is over or is waited for. body: of the order that starts the rollout."""
    model, version = str(body["model"]), str(body["version"])
    while True:
        found = _found(url, model, version, shown)
        if found.step is Step.START:
            try:
                get_run_logger().info(order(url, "/v1/requests/start", body, shown)["told"])
            except OrderRefused as error:
                return Failed(message=f"{found.told}, and no rollout starts: {error}; then retry this run on Prefect's page")
            continue
        _tell(found, model, version)
        if found.step.is_over:
            return _ENDED[found.step](message=found.told)
        suspend_flow_run(key=f"{found.key}{SEPARATOR}{uuid.uuid4().hex}")


def _found(url: str, model: str, version: str, shown: ServiceCredentials) -> Situation:
    try:
        asked = next((one for one in ask(url, "/v1/requests", shown) if (one["model"], one["version"]) == (model, version)), None)
        if asked is None:
            raise TrackingError(f"the controller at {url} knows no request of {model}/{version}. Fix: was its database replaced?")
        rollout = ask(url, f"/v1/rollouts/{asked['rollout']}", shown) if asked["rollout"] is not None else None
    except NotReady as error:
        return Situation(step=Step.WAIT, key=NO_ANSWER, told=str(error))
    return situation_of(asked, rollout)


def _tell(found: Situation, model: str, version: str) -> None:
    get_run_logger().info(found.told)
    create_markdown_artifact(key="requested-rollout", markdown=f"# {model}/{version}\n\n{found.told}", description=found.step.value)


def serve_deployment() -> None:
    """Register the deployment and run what the desk asks for, a few at a time."""
    deployment = cast(
        RunnerDeployment,
        requested_rollout.to_deployment(
            name=DEPLOYMENT,
            paused=False,
            description="A version that MLflow's alias asks for: approved by a person, started once, followed to its end.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        ),
    )
    serve(deployment, limit=4, print_starting_message=False)


if __name__ == "__main__":
    # Prefect remembers where the flow came from: it must be this module by its name, not "__main__"
    from flows.pipeline.rollouts import flow as named

    named.serve_deployment()
