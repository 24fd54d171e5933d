"""Actions as the published preparation and parser count them, next to what the platform's codec does."""

from __future__ import annotations

import numpy as np
import pytest

from model_core.spec.errors import SpecError
from model_core.tokenization.action_codec import (
    CENTRES,
    EDGES,
    PUBLISHED_FIRST_ID,
    ActionCodec,
    bins_of,
    published_symbols,
    symbols_of,
    values_of,
)
from model_core.tokenization.published.actions import (
    PublishedStats,
    published_bins,
    published_normalized,
    published_physical,
    published_statistics,
    published_values,
    published_window,
)
from model_core.tokenization.published.grammar import render_actions
from tests.golden_road import arrays, document

SETS = document("actions.json")["sets"]
NUMBERS = arrays("actions.npz")


@pytest.mark.parametrize("name", list(SETS))
def test_normalised_values_bins_pieces_and_back(name):
    described = SETS[name]
    stats = PublishedStats.of({"of": {"action": described["action_stats"]}})
    found = {key.removeprefix(f"{name}__"): value for key, value in NUMBERS.items() if key.startswith(f"{name}__")}
    normalized = published_normalized(found["values"], stats, dims=described["normalize_dims"])
    np.testing.assert_allclose(normalized, found["normalized"], rtol=0, atol=1e-6)
    bins = published_bins(normalized)
    assert np.array_equal(bins, found["bin"])
    assert np.array_equal(PUBLISHED_FIRST_ID + 1 - bins, found["token_id"])
    assert symbols_of(bins) == found["token"].tolist()
    decoded = published_physical(np.array([published_values(row) for row in found["token"].tolist()]), stats)
    np.testing.assert_allclose(decoded, found["decoded"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["binning", "binning64"])
def test_binning_at_every_edge(name):
    normalized, bins = NUMBERS[f"{name}__normalized"], NUMBERS[f"{name}__bin"]
    assert np.array_equal(published_bins(normalized), bins)
    if f"{name}__token" in NUMBERS:
        assert [published_symbols()[d - 1] for d in bins.tolist()] == NUMBERS[f"{name}__token"].tolist()
    finite = np.isfinite(normalized)
    assert np.array_equal(bins_of(normalized[finite]), bins[finite])


def test_the_table_of_bins():
    bins = NUMBERS["table__bin"].astype(np.int64)
    assert [published_symbols()[d - 1] for d in bins.tolist()] == NUMBERS["table__token"].tolist()
    assert np.array_equal(PUBLISHED_FIRST_ID + 1 - bins, NUMBERS["table__token_id"])
    assert np.array_equal(values_of(bins), NUMBERS["table__decoded_normalized"])
    assert np.array_equal(published_values(NUMBERS["table__token"].tolist()), NUMBERS["table__decoded_normalized"])
    assert np.array_equal(EDGES, NUMBERS["bin_edges"])
    assert np.array_equal(CENTRES, NUMBERS["bin_centers"])


@pytest.mark.parametrize(("name", "state"), [("stats7", "stats7__state"), ("stats14", None), ("stats5", None)])
def test_statistics_and_chunks_of_a_data_set(name, state):
    expected, first = document("actions.json")[name], document("actions.json")[f"{name}_first12"]
    actions_TA = NUMBERS[f"{name}__actions"]
    proprio = NUMBERS[state] if state else None
    made = published_statistics(actions_TA, proprio, trajectories=expected["num_trajectories"])
    for part in ("action", "proprio"):
        for moment, values in expected[part].items():
            assert np.abs(np.subtract(made[part][moment], values, dtype=np.float64)).max() <= 1e-6, (part, moment)
    assert made["action"]["mask"] == expected["action"]["mask"]
    assert made["num_transitions"] == expected["num_transitions"]
    stats = PublishedStats.of({name: expected})
    normalized_TA = published_normalized(actions_TA, stats)
    np.testing.assert_allclose(normalized_TA[:12], first["normalized"], rtol=0, atol=1e-6)
    bins_TA = published_bins(normalized_TA)
    for step in range(12):
        assert render_actions(bins_TA[step : step + 1]) == first["tokenized"][step]
        for length in (1, 8):
            chunk_KA = published_window(bins_TA[:12], step, length)
            written = first[f"chunks_of_{length}"]
            if step < len(written):
                assert render_actions(chunk_KA, nested=True) == written[step]


def test_the_platform_codec_agrees_where_the_release_is_sound():
    """Dimensions that the mask names, inside the range: the same bin, or the neighbour where float32 decides at an edge."""
    described = SETS["seven"]
    stats = PublishedStats.of({"of": {"action": described["action_stats"]}}).sound()
    values = NUMBERS["seven__values"][:, :6].astype(np.float64)
    ours = ActionCodec(stats=stats).encode(np.concatenate([values, np.zeros((len(values), 1))], axis=1))[:, :6]
    away = np.abs(ours - NUMBERS["seven__bin"][:, :6])
    assert away.max() <= 1
    assert (away == 0).mean() > 0.9
    decoded = ActionCodec(stats=stats).decode(NUMBERS["seven__bin"].astype(np.int64))
    np.testing.assert_allclose(decoded, NUMBERS["seven__decoded"], rtol=0, atol=1e-6)


def test_quirk_3_numbers_that_are_none_are_refused_by_the_platform_codec():
    stats = PublishedStats(q01=(0.0, 0.0), q99=(1.0, 1.0), mask=(True, False)).sound()
    assert published_bins(np.array([np.nan], np.float32)).tolist() == [256]
    with pytest.raises(SpecError, match="NaN or inf"):
        ActionCodec(stats=stats).encode(np.array([[np.nan, 0.0]]))


def test_quirk_4_the_platform_codec_flips_no_dimension():
    wide = PublishedStats(q01=(-1.0,) * 14, q99=(1.0,) * 14, mask=(True,) * 6 + (False,) * 8)
    action = np.full((1, 14), 0.25, np.float32)
    flipped = published_normalized(action, wide)[0]
    assert (flipped[6], flipped[13]) == (0.75, 0.25)
    codec = ActionCodec(stats=wide.sound())
    assert np.abs(codec.decode(codec.encode(action)) - action).max() <= 1 / 255
