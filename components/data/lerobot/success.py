"""Whether an episode solved its task, as far as its data set says so. A set that says nothing leaves it unknown, which is not failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.lerobot import layout
from model_core.spec.errors import DatasetError

# of frames (LeRobot's simulated environments, DROID) and of episodes
SUCCESS_COLUMNS = ("next.success", "success", "is_episode_successful")


def with_unknown(flags: pa.ChunkedArray) -> pa.ChunkedArray:
    """Flags of frames as numbers, where one that is missing is no number: it is unknown, and the others still count."""
    if not flags.null_count or pa.types.is_nested(flags.type):
        return flags
    return flags.cast(pa.float64()).fill_null(float("nan"))


def statements(ours: Mapping[str, Any], entry: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """place -> what stands there, of one episode. ours, entry: its rows in our table and in meta/episodes. columns: of all frames."""
    rows = slice(entry["dataset_from_index"], entry["dataset_from_index"] + entry["length"])
    found: dict[str, Any] = {layout.EXTENSION_EPISODES: ours.get("success")}
    found |= {f"meta/episodes {name}": entry.get(name) for name in SUCCESS_COLUMNS}
    return found | {f"frames {name}": columns[name][rows] for name in SUCCESS_COLUMNS if name in columns}


def stated_success(where: str, stated: Mapping[str, Any]) -> bool | None:
    """True, False, or None where nothing says it. stated: place -> its flag, or its flags over the frames (one that is set is enough).

    Raises `DatasetError` where a place holds something else than flags, or where two places disagree.
    """
    said = {place: _flag(f"{where}: {place}", value) for place, value in stated.items()}
    known = {place: flag for place, flag in said.items() if flag is not None}
    if len(set(known.values())) > 1:
        both = ", ".join(f"{place} says {'solved' if flag else 'not solved'}" for place, flag in known.items())
        raise DatasetError(
            f"{where}: whether it solved its task is said twice and differently ({both}). Fix: correct or remove one of them"
        )
    return next(iter(known.values()), None)


def _flag(where: str, value: Any) -> bool | None:
    flags = [one for one in np.ravel(np.asarray(value, object)).tolist() if one is not None and one == one]
    if not flags:
        return None
    if other := [one for one in flags if isinstance(one, str) or one not in (0, 1)]:
        raise DatasetError(f"{where} holds {other[0]!r}, expected true or false. Fix: correct the column, or give it another name")
    return any(flags)
