"""Proposed retrainings: recognised as due, recorded once, started by a person.

A proposal's id comes from what it is about, so the clock and an event that see the same recordings propose once. Its file
holds its state: open, then approved (requested, where the schedule is to run it), then done.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.artifacts.locks import locked
from components.artifacts.step_store import StepStore
from components.config.recipe import Recipe
from model_core.spec.contract import digest_of
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import NotReady
from model_core.spec.files import atomic_write

logger = logging.getLogger(__name__)

SEEDS_A_ROUND = 100_000  # a cell's own seeds begin 1000 after those of the cell before it


class ProposalState(enum.StrEnum):
    """Where a proposal stands."""

    OPEN = "open"
    REQUESTED = "requested"  # a person approved it, and the schedule that is served runs it
    APPROVED = "approved"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A retraining that is due. recordings: digests of ingested data sets that no earlier, finished retraining knew."""

    proposal_id: str
    recipe: Mapping[str, Any]
    reason: str
    recordings: tuple[str, ...] = ()
    state: ProposalState = ProposalState.OPEN
    run: str = field(default="")


def recordings_of(store: StepStore) -> tuple[str, ...]:
    """Digests of the ingested data sets in this store, sorted."""
    return tuple(sorted({step.digest for step in store.steps("ingest")}))


def due(recipe: Recipe, recordings: Sequence[str], known: Sequence[Proposal], *, ever_run: bool) -> Proposal | None:
    """The retraining that is due now, or None. Pure.

    recordings: digests of all ingested data sets; they join the proposed recipe. known: earlier proposals; what a finished
    one was about is not new. ever_run: whether the recipe was run here before.
    """
    used = {r for p in known if p.state is ProposalState.DONE for r in p.recordings}
    new = tuple(r for r in recordings if r not in used)
    if ever_run and not new:
        return None
    reason = f"{len(new)} ingested data sets are new since the last retraining" if ever_run else f"recipe {recipe.name} was never run here"
    proposal_id = _id_of(recipe, new, ever_run=ever_run)
    wider = replace(recipe, include=tuple(dict.fromkeys((*recipe.include, *recordings))))
    if new:
        wider = _with_unused_seeds(wider, 1 + sum(p.state is ProposalState.DONE for p in known))
    return Proposal(proposal_id=proposal_id, recipe=wider.to_json(), reason=reason, recordings=new)


def begun(recipe: Recipe, known: Sequence[Proposal]) -> Proposal | None:
    """The retraining of `recipe` that was approved and is not finished, or None. Pure.

    `due` may not name it again: once it has trained, the recipe was run here, though nothing of that was judged.
    """
    for one in known:
        if one.state is ProposalState.APPROVED and one.proposal_id in {_id_of(recipe, one.recordings, ever_run=e) for e in (False, True)}:
            return one
    return None


def _id_of(recipe: Recipe, recordings: Sequence[str], *, ever_run: bool) -> str:
    return digest_of({"recipe": recipe.digest, "recordings": list(recordings), "ever_run": ever_run})[:12]


def _with_unused_seeds(recipe: Recipe, rounds: int) -> Recipe:
    """The cells' recordings become training data, so they are evaluated on seeds that were never recorded."""
    cells = recipe.workcells
    return replace(recipe, workcells=replace(cells, first_seed=cells.first_seed + rounds * SEEDS_A_ROUND))


class ProposalBook:
    """The proposals of one home, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Proposal]:
        """Every proposal, by id."""
        return [self._read(path) for path in sorted(self._folder.glob("*.json"))]

    def propose(self, proposal: Proposal) -> Proposal:
        """Write it down unless it is known; returns what is written."""
        path = self._path(proposal.proposal_id)
        if not path.exists():
            self._write(proposal)
        return self._read(path)

    def find(self, beginning: str) -> Proposal:
        """The one proposal whose id begins so; raises `NotReady` listing the open ones."""
        found = [p for p in self.all() if p.proposal_id.startswith(beginning)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(p.proposal_id for p in self.all() if p.state is not ProposalState.DONE) or "none"
        raise NotReady(f"{'several proposals begin' if found else 'no proposal begins'} with {beginning!r}; open: {known}")

    @contextlib.contextmanager
    def alone_with(self, proposal_id: str) -> Iterator[Proposal]:
        """The proposal as it stands, for one process at a time: a second one waits, and finds what the first has made of it."""

        def waiting() -> None:
            logger.warning("proposal.waiting id=%s: another process carries it out, waiting for it", proposal_id)

        with locked(self._folder / ".locks" / proposal_id, on_wait=waiting):
            yield self.find(proposal_id)

    def mark(self, proposal: Proposal, state: ProposalState, *, run: str = "") -> Proposal:
        """Write down that it moved on."""
        moved = replace(proposal, state=state, run=run)
        self._write(moved)
        return moved

    def _write(self, proposal: Proposal) -> None:
        atomic_write(self._path(proposal.proposal_id), json.dumps(to_document(proposal), indent=1, sort_keys=True))

    def _path(self, proposal_id: str) -> Path:
        return self._folder / f"{proposal_id}.json"

    @staticmethod
    def _read(path: Path) -> Proposal:
        return from_document(Proposal, json.loads(path.read_text(encoding="utf-8")), where=f"proposal {path.stem}")
