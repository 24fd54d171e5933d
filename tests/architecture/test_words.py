"""Code and documents are in plain international English. The files that still have other words may only get fewer of them."""

from __future__ import annotations

from tests.architecture.words import WORDS, count, counts, recorded

MOST = 58  # recorded when the test was introduced


def test_no_file_has_more_of_the_words_than_recorded():
    more = {name: number for name, number in counts().items() if number > recorded().get(name, 0)}
    assert not more, f"more words than recorded in {more}; write instead: {WORDS}"


def test_the_record_only_shrinks():
    assert sum(recorded().values()) <= MOST
    fewer = {name: number for name, number in recorded().items() if counts().get(name, 0) < number}
    assert not fewer, f"fewer than recorded: {fewer}; run `.venv/bin/python -m tests.architecture.words --shrink`"


def test_words_are_found_in_any_case_and_not_inside_others():
    assert count("Nobody asks anew; the mind learnt") == 4
    assert count("The misspelt renewal of a mind, unlearnt") == 0
