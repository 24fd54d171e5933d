"""The kinds of example as forms of the published language, and how often each is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.config.published.training import ExampleGroup
from model_core.tokenization.published.grammar import Form

FORMS: Mapping[str, Form] = {
    "action_reasoning": Form.FULL,
    "trajectory_conditioned": Form.STEERED,
    "depth": Form.DEPTH,
    "trace": Form.TRACE,
}


def kind_weights(groups: Sequence[ExampleGroup]) -> dict[str, float]:
    """How often each kind of example is made, over all groups; together 1."""
    found: dict[str, float] = {}
    rates = sum(group.rate for group in groups)
    for group in groups:
        whole = sum(group.kinds.values())
        for kind, weight in group.kinds.items():
            if weight:
                found[kind] = found.get(kind, 0.0) + group.rate / rates * weight / whole
    return found
