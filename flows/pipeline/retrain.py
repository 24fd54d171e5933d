"""The retraining deployment: checks whether a retraining is due, then proposes it, or runs it if configured to.

Started by the clock (cron) and by the event `NEW_RECORDINGS`, in a work pool of Prefect; run as a module it registers the deployment and
works for the pool until it is stopped. Stages that are finished are found: a run that is put back goes on where it was killed.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType

from components.config.recipe import Recipe
from components.config.records import Silent
from components.release.retraining_proposals import Proposal, ProposalBook, ProposalState, begun, due, recordings_of
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages.cluster_launch import cluster_launch
from flows.pipeline.stages.training import Launch
from flows.pipeline.storage import take_in_recordings
from flows.platform.flow_runs import crashed_where_prefect_is_away
from flows.platform.settings import Settings
from flows.platform.wiring import Platform, open_platform
from model_core.spec.documents import to_document
from model_core.spec.errors import GateError, JobError

NEW_RECORDINGS = "actwright.recordings.arrived"
DEPLOYMENT = "retrain"
POOL = "actwright"


@flow(name="retrain", persist_result=False)
def retrain(
    recipe: str, automatic: bool = False, approved: str = "", cluster: Mapping[str, Any] | None = None, kubeconfig: str = ""
) -> dict[str, Any]:
    """Propose a retraining that is due (or run it, when `automatic`). recipe: a name or a resolved .json file.

    approved: id of a proposal to run, whatever is due. cluster: document of a `JobSpec`, on whose machines a policy is trained; none: here.
    """
    platform = open_platform()
    with crashed_where_prefect_is_away(platform.settings):
        launch = _launch(platform.settings, cluster, kubeconfig)
        return _retrained(platform, recipe, automatic=automatic, approved=approved, launch=launch)


def _retrained(platform: Platform, recipe: str, *, automatic: bool, approved: str, launch: Launch | None) -> dict[str, Any]:
    if approved:
        return to_document(run_proposal(platform, book_of(platform).find(approved), launch))
    chosen = get_recipe(recipe)
    take_in(platform, chosen)
    unfinished = begun(chosen, book_of(platform).all()) if automatic else None  # its process was killed: it goes on
    proposal = unfinished or propose_if_due(platform, chosen)
    if proposal is None:
        return {"due": False}
    create_markdown_artifact(key="retraining", markdown=_page(proposal), description=proposal.reason)
    if automatic:
        run_proposal(platform, proposal, launch)
    return {"due": True, **to_document(book_of(platform).find(proposal.proposal_id))}


def take_in(platform: Platform, recipe: Recipe) -> None:
    """Ingest what waits in object storage; recordings that are all bad are reported, and do not stop the retraining."""
    try:
        take_in_recordings(platform, recipe, None, Silent())
    except GateError as error:
        create_markdown_artifact(key="recordings", markdown=f"# Not taken in\n\n{error}", description="ingest")


def propose_if_due(platform: Platform, recipe: Recipe) -> Proposal | None:
    """Write down the retraining that is due now, if any."""
    book = book_of(platform)
    ran = any(platform.store.steps("train"))
    found = due(recipe, recordings_of(platform.store), book.all(), ever_run=ran)
    return book.propose(found) if found else None


def run_proposal(platform: Platform, proposal: Proposal, launch: Launch | None = None) -> Proposal:
    """Carry out a proposal, once: the whole loop with its recipe. launch: trains on other machines."""
    from flows.pipeline.loop import run_loop
    from flows.pipeline.run_context import RunContext
    from flows.pipeline.run_summary import write_run

    book = book_of(platform)
    with book.alone_with(proposal.proposal_id) as found:
        if found.state is ProposalState.DONE:
            return found
        approved = book.mark(found, ProposalState.APPROVED)
        context = RunContext(platform=platform, recipe=Recipe.from_json(dict(found.recipe)), launch=launch)
        write_run(run_loop(context), platform.settings.runs)
        return book.mark(approved, ProposalState.DONE, run=context.name)


def _launch(settings: Settings, cluster: Mapping[str, Any] | None, kubeconfig: str) -> Launch | None:
    """Trains on the cluster's machines; None where none are named."""
    if cluster is None:
        return None
    from components.config.launch.cluster_job import JobSpec
    from flows.platform.wiring import open_cluster
    from model_core.spec.documents import from_document

    spec = from_document(JobSpec, cluster, where="cluster")

    return cluster_launch(settings, spec, lambda: open_cluster(Path(kubeconfig) if kubeconfig else None))


def book_of(platform: Platform) -> ProposalBook:
    """The proposals of this home."""
    return ProposalBook(platform.settings.home.resolve() / "proposals")


def serve_deployment(
    recipe: str,
    cron: str,
    automatic: bool,
    cluster: Mapping[str, Any] | None = None,
    kubeconfig: str = "",
    pool: Mapping[str, Any] | None = None,
) -> None:
    """Register the deployment with its cron and its event trigger, and work for its pool: what becomes due, one at a time.

    pool: name and job variables of a pool that other workers work for; then the deployment is only registered. Raises `JobError` where
    there is no such pool.
    """
    if pool is not None:
        require_pool(str(pool["name"]))
    deployment = cast(
        RunnerDeployment,
        retrain.to_deployment(
            name=DEPLOYMENT,
            cron=cron,
            paused=False,
            triggers=[DeploymentEventTrigger(name="new recordings", expect={NEW_RECORDINGS})],
            parameters={"recipe": recipe, "automatic": automatic, "cluster": cluster, "kubeconfig": kubeconfig},
            description="By the clock and when recordings arrive: propose a retraining, or run it.",
            entrypoint_type=EntrypointType.MODULE_PATH,
            work_pool_name=POOL if pool is None else str(pool["name"]),
            # settings may name folders relative to the working directory
            job_variables={"working_dir": str(Path.cwd())} if pool is None else dict(pool["variables"]),
        ),
    )
    if pool is None:
        work_for(deployment)
    else:
        deployment.apply()


def require_pool(name: str) -> None:
    """Raise `JobError` where Prefect has no work pool of this name: a worker of Kubernetes makes it with its template."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound as error:
            told = "its worker makes it (infra/k8s/components/flow-pool)"
            raise JobError(f"Prefect has no work pool {name!r}. Fix: start its worker, {told}, or name another one") from error


def work_for(deployment: RunnerDeployment) -> None:
    """Register a deployment in its pool, which is made where it is missing, and run its flow runs one at a time until a signal ends it."""
    import anyio
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=ProcessWorker.get_default_base_job_template())
        )
    deployment.apply()
    anyio.run(ProcessWorker(work_pool_name=POOL, limit=1).start)


def _page(proposal: Proposal) -> str:
    return f"# Retraining {proposal.state}\n\n{proposal.reason}\n\n`actwright approve {proposal.proposal_id}` runs it."


if __name__ == "__main__":
    # Prefect remembers where the flow came from: it must be this module by its name, not "__main__"
    from flows.pipeline import retrain as named

    chosen = json.loads(sys.argv[1])
    named.serve_deployment(**{**chosen, "recipe": str(Path(chosen["recipe"]).resolve())})
