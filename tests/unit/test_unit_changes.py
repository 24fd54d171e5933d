"""The rule of changed units: a dimension that hardly moves in some episodes is sound, one in another unit is not."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.ranges import unit_changes
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.numbers import measure_vector
from components.data.lerobot import layout


def named(sizes: list[float]) -> list[str]:
    """Which episodes the rule names; one of three dimensions is of these sizes, the others do not change."""
    rng = np.random.default_rng(1)
    episodes = tuple(
        EpisodeMeasurements(
            key="",
            episode_id=f"e{number}",
            number=number,
            frames=30,
            time=cast(Any, None),  # not read by this rule, nor is the meaning
            vectors={layout.ACTION: measure_vector(rng.uniform(-1, 1, (30, 3)) * (1, size, 1))},
            meaning=cast(Any, None),
        )
        for number, size in enumerate(sizes)
    )
    measured = SetMeasurements(name="arm", fps=20, episodes=episodes)
    return [fault.where for fault in unit_changes(measured, ValidateConfig()).faults]


def test_an_episode_that_needs_little_of_one_dimension_is_sound():
    assert named([1.0, 0.9, 0.7, 0.8, 1.0, 0.3, 0.15, 0.08, 0.02]) == []


def test_one_dimension_in_another_unit_is_named_whichever_way_it_changed():
    assert named([1.0, 0.9, 0.7, 0.8, 1.0, 0.8, 0.9, 0.017]) == ["e7"]
    assert named([1.0, 0.9, 0.7, 0.8, 1.0, 0.8, 0.9, 57.3]) == ["e7"]
