"""The retraining deployment: checks whether a retraining is due, then proposes it, or runs it if configured to.

Started by the clock (cron) and by the event `NEW_RECORDINGS`; run as a module it serves the deployment until it is stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from prefect import flow, serve
from prefect.artifacts import create_markdown_artifact
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType

from components.config.recipe import Recipe
from components.config.records import Silent
from components.release.retraining_proposals import Proposal, ProposalBook, ProposalState, due, recordings_of
from flows.pipeline.recipes import get_recipe
from flows.pipeline.storage import take_in_recordings
from flows.platform.wiring import Platform, open_platform
from model_core.spec.documents import to_document
from model_core.spec.errors import GateError

NEW_RECORDINGS = "actwright.recordings.arrived"
DEPLOYMENT = "retrain"


@flow(name="retrain", persist_result=False)
def retrain(recipe: str, automatic: bool = False) -> dict[str, Any]:
    """Propose a retraining that is due (or run it, when `automatic`). recipe: a name or a resolved .json file."""
    platform, chosen = open_platform(), get_recipe(recipe)
    take_in(platform, chosen)
    proposal = propose_if_due(platform, chosen)
    if proposal is None:
        return {"due": False}
    create_markdown_artifact(key="retraining", markdown=_page(proposal), description=proposal.reason)
    if automatic and proposal.state is ProposalState.OPEN:
        run_proposal(platform, proposal)
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


def run_proposal(platform: Platform, proposal: Proposal) -> Proposal:
    """Carry out a proposal: the whole loop with its recipe."""
    from flows.pipeline.loop import run_loop
    from flows.pipeline.run_context import RunContext
    from flows.pipeline.run_summary import write_run

    book = book_of(platform)
    approved = book.mark(proposal, ProposalState.APPROVED)
    context = RunContext(platform=platform, recipe=Recipe.from_json(dict(proposal.recipe)))
    write_run(run_loop(context), platform.settings.runs)
    return book.mark(approved, ProposalState.DONE, run=context.name)


def book_of(platform: Platform) -> ProposalBook:
    """The proposals of this home."""
    return ProposalBook(platform.settings.home.resolve() / "proposals")


def serve_deployment(recipe: str, cron: str, automatic: bool) -> None:
    """Register the deployment with its cron and its event trigger, and run what becomes due, one at a time."""
    deployment = cast(
        RunnerDeployment,
        retrain.to_deployment(
            name=DEPLOYMENT,
            cron=cron,
            paused=False,
            triggers=[DeploymentEventTrigger(name="new recordings", expect={NEW_RECORDINGS})],
            parameters={"recipe": recipe, "automatic": automatic},
            description="By the clock and when recordings arrive: propose a retraining, or run it.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        ),
    )
    serve(deployment, limit=1, print_starting_message=False)


def _page(proposal: Proposal) -> str:
    return f"# Retraining {proposal.state}\n\n{proposal.reason}\n\n`actwright approve {proposal.proposal_id}` runs it."


if __name__ == "__main__":
    # Prefect remembers where the flow came from: it must be this module by its name, not "__main__"
    from flows.pipeline import retrain as named

    named.serve_deployment(str(Path(sys.argv[1]).resolve()), sys.argv[2], sys.argv[3] == "automatic")
