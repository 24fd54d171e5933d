"""How the decoding of one request ends: with a result, or with one of three errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import ActwrightError, GrammarError
from model_core.spec.types import ActionReasoning


class CancelledError(ActwrightError):
    """The request was cancelled while it was decoded."""


class NotFiniteError(ActwrightError):
    """The model computed NaN or inf; there is no result."""


DecodeFailure = GrammarError | CancelledError | NotFiniteError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeResult:
    """What was decoded for one row, given part included.

    counts: as `Decision.counts`. timing_ms: this row's share of the time, by stage.
    """

    ids_L: NDArray[np.int64]
    reasoning: ActionReasoning
    counts: Mapping[str, int] = field(default_factory=dict)
    timing_ms: Mapping[str, float] = field(default_factory=dict)
