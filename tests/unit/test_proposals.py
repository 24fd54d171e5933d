"""A retraining is proposed once, for what is new, and joins what was ingested."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.config.recipe import Recipe
from components.release.retraining_proposals import ProposalBook, ProposalState, due
from model_core.spec.errors import NotReady

RECIPE = Recipe(name="loop")


def test_a_first_run_is_due_and_then_nothing_is_until_something_is_new():
    first = due(RECIPE, (), (), ever_run=False)
    assert first is not None
    assert "never run here" in first.reason
    assert due(RECIPE, (), (), ever_run=True) is None
    new = due(RECIPE, ("aa", "bb"), (), ever_run=True)
    assert new is not None
    assert "2 ingested data sets are new" in new.reason
    assert new.recipe["include"] == ["aa", "bb"]
    assert new.recipe["workcells"]["first_seed"] == RECIPE.workcells.first_seed + 100_000, "nobody is examined on a scene that was learnt"


def test_what_a_finished_retraining_learnt_is_not_new():
    done = replace(due(RECIPE, ("aa",), (), ever_run=True), state=ProposalState.DONE)
    assert due(RECIPE, ("aa",), (done,), ever_run=True) is None
    again = due(RECIPE, ("aa", "bb"), (done,), ever_run=True)
    assert again.recordings == ("bb",)
    assert again.recipe["include"] == ["aa", "bb"]
    still_open = replace(done, state=ProposalState.OPEN)
    assert due(RECIPE, ("aa",), (still_open,), ever_run=True).proposal_id == still_open.proposal_id


def test_the_book_writes_a_proposal_once_and_remembers_where_it_stands(tmp_path):
    book = ProposalBook(tmp_path)
    proposal = book.propose(due(RECIPE, ("aa",), (), ever_run=True))
    book.mark(proposal, ProposalState.DONE, run="r1")
    assert book.propose(proposal).state is ProposalState.DONE
    assert book.find(proposal.proposal_id[:4]).run == "r1"
    assert len(book.all()) == 1
    assert Recipe.from_json(dict(proposal.recipe)).include == ("aa",)


def test_an_unknown_proposal_lists_the_open_ones(tmp_path):
    book = ProposalBook(tmp_path)
    kept = book.propose(due(RECIPE, ("aa",), (), ever_run=True))
    with pytest.raises(NotReady, match=kept.proposal_id):
        book.find("zz")
