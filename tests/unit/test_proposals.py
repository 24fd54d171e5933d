"""A retraining is proposed once, for what is new, and joins what was ingested."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from components.config.recipe import Recipe
from components.release.retraining_proposals import ProposalBook, ProposalState, begun, due
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


def test_what_was_begun_is_known_though_its_training_is_finished(tmp_path):
    first = due(RECIPE, (), (), ever_run=False)
    assert due(RECIPE, (), (first,), ever_run=True) is None, "trained and not judged: by what is new alone it would stay so"
    assert begun(RECIPE, (first,)) is None, "nobody approved it"
    approved = replace(first, state=ProposalState.APPROVED)
    assert begun(RECIPE, (approved,)) == approved
    assert begun(replace(RECIPE, name="other"), (approved,)) is None, "of another recipe"
    assert begun(RECIPE, (replace(approved, state=ProposalState.DONE),)) is None
    later = replace(due(RECIPE, ("aa",), (), ever_run=True), state=ProposalState.APPROVED)
    assert begun(RECIPE, (later,)) == later


def test_of_two_that_carry_one_out_the_second_finds_it_done(tmp_path):
    book, inside = ProposalBook(tmp_path), threading.Event()
    proposal = book.propose(due(RECIPE, ("aa",), (), ever_run=True))

    def first():
        with book.alone_with(proposal.proposal_id) as found:
            inside.set()
            book.mark(found, ProposalState.DONE, run="r1")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with book.alone_with(proposal.proposal_id) as found:
        assert (found.state, found.run) == (ProposalState.DONE, "r1")
    thread.join()
    assert len(book.all()) == 1
