"""Hypothesis strategies of the project's nouns."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_core.spec.stats import UnnormStats
from model_core.spec.types import DEPTH_CELLS, ActionReasoning, DepthTokens, Trace

unit_floats = st.floats(-1.0, 1.0, allow_nan=False, width=64)
action_bins = st.integers(1, 256)


@st.composite
def traces(draw: st.DrawFn, min_points: int = 1) -> Trace:
    """Any sound trace."""
    points = draw(st.integers(min_points, 5))
    return Trace(points_N2=draw(hnp.arrays(np.int64, (points, 2), elements=st.integers(0, 255))))


@st.composite
def depth_tokens(draw: st.DrawFn, num_codes: int = 128) -> DepthTokens:
    """Any sound depth grid."""
    return DepthTokens(codes_G=draw(hnp.arrays(np.int64, (DEPTH_CELLS,), elements=st.integers(0, num_codes - 1))), num_codes=num_codes)


@st.composite
def reasonings(draw: st.DrawFn, chunk_length: int = 8, action_dims: int = 4) -> ActionReasoning:
    """A full answer: depth, trace and bins."""
    bins = hnp.arrays(np.int64, (chunk_length, action_dims), elements=action_bins)
    return ActionReasoning(depth=draw(depth_tokens()), trace=draw(traces()), bins_KA=draw(bins))


@st.composite
def unnorm_stats(draw: st.DrawFn, dims: int = 4) -> UnnormStats:
    """Statistics with a real span in every dimension."""
    low = draw(st.lists(st.floats(-5, 5), min_size=dims, max_size=dims))
    span = draw(st.lists(st.floats(1e-3, 5), min_size=dims, max_size=dims))
    mask = draw(st.lists(st.booleans(), min_size=dims, max_size=dims))
    return UnnormStats(q01=tuple(low), q99=tuple(a + b for a, b in zip(low, span, strict=True)), mask=tuple(mask))
