"""stats.json as recorders compute it belongs to its data, whatever float32 loses; one of other data does not.

Run: .venv/bin/python -m pytest tests/unit/test_honest_statistics.py
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.stale_statistics import stale_statistics
from tests.plain_set import PlainEpisode, plain_episode, write_plain_set

LENGTH = 60


def of_float32(parts: list[NDArray[np.float32]]) -> dict[str, Any]:
    """An episode at a time in float32: the deviation from the mean of squares less the square of the mean; then pooled."""
    means = np.stack([part.mean(axis=0) for part in parts])
    squares = np.stack([(part * part).mean(axis=0) for part in parts])
    deviations = np.sqrt(np.maximum(squares - means * means, 0))
    mean = means.mean(axis=0)
    whole = np.concatenate(parts)
    std = np.sqrt((deviations**2 + (means - mean) ** 2).mean(axis=0))
    found = {"min": whole.min(axis=0), "max": whole.max(axis=0), "mean": mean, "std": std, "count": np.array([len(whole)])}
    return {name: value.tolist() for name, value in found.items()}


def shaped(kind: str, number: int) -> PlainEpisode:
    one = plain_episode(number, length=LENGTH)
    state, action = one.state_TP.copy(), one.actions_TA.copy()
    if kind == "constant action":
        action[:, 3] = 0.3
    if kind == "constant state":
        state[:, 3] = 0.7
    if kind == "small span far from 0":
        state[:, 1] = 0.95 + 0.0005 * np.sin(np.arange(LENGTH) + number)
    if kind == "large offset":
        state[:, 0] = 1000 + 0.01 * np.sin(np.arange(LENGTH))
    return replace(one, state_TP=state, actions_TA=action)


def write(tmp_path: Path, kind: str) -> Path:
    made = [shaped(kind, n) for n in range(3)]
    root = write_plain_set(tmp_path / "set", [replace(one, frames_THW3=one.frames_THW3[:, :32, :32]) for one in made])
    stats = {"observation.state": of_float32([m.state_TP for m in made]), "action": of_float32([m.actions_TA for m in made])}
    (root / "meta/stats.json").write_text(json.dumps(stats))
    return root


def changed(root: Path, key: str, name: str, place: int, value: float) -> list[str]:
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats[key][name][place] = value
    path.write_text(json.dumps(stats))
    return stale_statistics(DatasetReader(root))


@pytest.mark.parametrize("kind", ["varied", "constant action", "constant state", "small span far from 0", "large offset"])
def test_what_float32_loses_is_no_difference(tmp_path: Path, kind: str) -> None:
    assert stale_statistics(DatasetReader(write(tmp_path, kind))) == []


@pytest.mark.parametrize(
    ("kind", "key", "name", "place", "value"),
    [
        ("varied", "action", "mean", 1, 0.9),
        ("varied", "action", "std", 0, 0.6),
        ("constant action", "action", "max", 3, 0.301),
        ("constant state", "observation.state", "std", 3, 0.05),
        ("small span far from 0", "observation.state", "min", 1, 0.9505),
        ("small span far from 0", "observation.state", "std", 1, 0.02),
        ("large offset", "observation.state", "mean", 0, 1000.1),
    ],
)
def test_another_datas_value_is_named_with_the_digits_in_which_it_differs(
    tmp_path: Path, kind: str, key: str, name: str, place: int, value: float
) -> None:
    (reason,) = changed(write(tmp_path, kind), key, name, place, value)
    stated, given = reason.split("the data give")
    assert f"{key} {name} is {value:.9g} in dimension {place}" in stated
    assert given.split()[0] != f"{value:.9g}", "what is said differs in what is printed"
    assert "trust" not in reason


def test_lost_rows_and_another_width_are_seen(tmp_path: Path) -> None:
    root = write(tmp_path, "varied")
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["action"]["count"] = [LENGTH]
    stats["observation.state"]["std"] = [0.1]
    path.write_text(json.dumps(stats))
    reasons = stale_statistics(DatasetReader(root))
    assert f"stats.json counts [{LENGTH}] frames of action, the data has {3 * LENGTH}" in reasons
    assert any("states 1 values of observation.state std, the data have 4 dimensions" in reason for reason in reasons)
