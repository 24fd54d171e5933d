"""Alarms as a proposal to retrain, with the episodes that caused it: recorded once, approved by a person."""

from __future__ import annotations

from collections.abc import Sequence

from components.config.recipe import Recipe
from components.deployment.quality.watch import Alarm
from components.release.retraining_proposals import Proposal
from model_core.spec.contract import digest_of

_MOST_NAMED = 20


def proposal_of(recipe: Recipe, alarms: Sequence[Alarm]) -> Proposal | None:
    """The retraining that these alarms ask for; None without one. The same alarms propose once. Pure."""
    if not alarms:
        return None
    about = [[one.cell, one.task, one.model_version, one.measure, one.since] for one in alarms]
    causes = list(dict.fromkeys(path for one in alarms for path in one.paths))
    told = "; ".join(one.sentence for one in alarms[:_MOST_NAMED])
    named = ", ".join(causes[:_MOST_NAMED]) + (f" and {len(causes) - _MOST_NAMED} more" if len(causes) > _MOST_NAMED else "")
    return Proposal(
        proposal_id=digest_of({"recipe": recipe.digest, "alarms": about})[:12],
        recipe=recipe.to_json(),
        reason=f"quality in production: {told}. Caused by {len(causes)} episodes: {named}",
    )
