"""Merges of a byte-level BPE table: each entry is made of the two that lower ranks leave of it."""

from __future__ import annotations

import pytest

from model_core.spec.errors import CheckpointError
from model_core.tokenization.published.tokenizer_files import merged_pairs


def ranks(*entries: str) -> dict[bytes, int]:
    return {entry.encode(): rank for rank, entry in enumerate(entries)}


def test_each_entry_is_made_of_what_lower_ranks_leave_of_it():
    table = ranks("a", "b", "c", "ab", "bc", "abc", "aa", "aaaa", "bca")
    assert merged_pairs(table) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"a"), (b"aa", b"aa"), (b"bc", b"a")]


def test_a_table_that_no_merges_make_is_refused():
    with pytest.raises(CheckpointError, match=r"entry b'abc' of rank 3 is not made of two entries of lower rank"):
        merged_pairs(ranks("a", "b", "c", "abc"))
