"""Whose numbers become ours: each dimension of an embodiment is one column of a set, by name, by place or by the recipe's map. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import VectorSpec
from model_core.spec.errors import DatasetError

Place = tuple[str, int]  # a feature of the set, and a place in its vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The vectors of a set. widths: feature -> numbers a frame. names: feature -> names of its dimensions ("" list where it has none)."""

    widths: Mapping[str, int]
    names: Mapping[str, Sequence[str]]


def places_of(where: str, ours: VectorSpec, chosen: Mapping[str, str], features: Features, default: str) -> tuple[Place, ...]:
    """Where each of our dimensions stands in the set. chosen: our dimension -> theirs (`SourceConfig.actions`, `proprio`).

    default: the feature that is meant where none is named. Raises `DatasetError` for a dimension that cannot be found without a guess.
    """
    names = [dim.name for dim in ours.dims]
    if strangers := sorted(set(chosen) - set(names)):
        raise DatasetError(f"{where} maps {strangers[0]!r}, which is no dimension of the embodiment ({', '.join(names)}). Fix: correct it")
    if not chosen and not features.names.get(default):
        _check_width(where, names, features, default)
        return tuple((default, place) for place in range(len(names)))
    return tuple(_place(where, name, chosen.get(name, name), features, default) for name in names)


def _check_width(where: str, names: Sequence[str], features: Features, default: str) -> None:
    width = features.widths.get(default)
    if width != len(names):
        got = "no such column" if width is None else f"{width} numbers without names"
        raise DatasetError(
            f"{where}: expected {len(names)} dimensions ({', '.join(names)}) in {default!r}, got {got}. "
            f"Fix: name the place of each in the recipe's source, such as {{{names[0]}: '{default}[0]'}}, or correct the embodiment file"
        )


def _place(where: str, name: str, text: str, features: Features, default: str) -> Place:
    feature, place = default, text
    if text.endswith("]") and text.partition("[")[0] in features.widths:
        feature, _, place = text[:-1].partition("[")
    width, known = features.widths.get(feature, 0), list(features.names.get(feature, ()))
    if place in known:
        if known.count(place) > 1:
            raise DatasetError(f"{where}: {feature!r} names two of its dimensions {place!r}. Fix: give the place as a number")
        return feature, known.index(place)
    if place.isdigit() and int(place) < width:
        return feature, int(place)
    listed = ", ".join(known) or f"{width} numbers without names"
    raise DatasetError(
        f"{where}: dimension {name!r} was not found as {text!r} in {feature!r}, which has {listed}. "
        f"Fix: map it in the recipe's source, such as {{{name}: '{feature}[0]'}}"
    )


def picked(columns: Mapping[str, NDArray[np.generic]], places: Sequence[Place]) -> NDArray[np.float32]:
    """These columns of an episode side by side, (T, D) float32."""
    parts = [columns[feature].reshape(len(columns[feature]), -1)[:, place] for feature, place in places]
    return np.stack(parts, axis=1).astype(np.float32)


def any_of_n(flags_T: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    """The flags of steps of `stride` frames each, (T // stride,): a step has one where any of its frames has."""
    steps = len(flags_T) // stride
    return np.any(flags_T[: steps * stride].reshape(steps, stride), axis=1)


def every_nth(actions_TA: NDArray[np.float32], modes: Sequence[str], stride: int) -> NDArray[np.float32]:
    """The actions of steps of `stride` frames each, (T // stride, A): frames past the last whole step are left out.

    A change ("delta") is the sum of the frames' changes, a speed their mean; a place ("absolute") is the last one of the step.
    Sums of rotation changes are exact only for small ones.
    """
    steps = len(actions_TA) // stride
    windows_NSA = actions_TA[: steps * stride].reshape(steps, stride, -1)
    kinds: dict[str, NDArray[np.floating]] = {
        "delta": windows_NSA.sum(axis=1, dtype=np.float64),
        "velocity": windows_NSA.mean(axis=1, dtype=np.float64),
    }
    columns = [kinds.get(mode, windows_NSA[:, -1])[:, place] for place, mode in enumerate(modes)]
    return np.stack(columns, axis=1).astype(np.float32)
