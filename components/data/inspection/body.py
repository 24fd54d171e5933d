"""Is a recording of the body that a recipe is for? What it says of itself is compared field by field, by the comparison of the handshake.

A data set describes its body in meta/actwright.json (whole, by our writer) and in meta/info.json (rate, names, widths, cameras); a cell's
recording carries the robot's own description. What differs and loses nothing is converted, all else is refused. What is not described
cannot be compared: it is taken as the recipe's body says, and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.config.records import Finding
from components.data.lerobot import layout
from components.data.lerobot.meta.info import names_of, width_of
from components.data.lerobot.reader import DatasetReader
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, Mismatch, VectorSpec
from model_core.spec.conversion import Conversion, camera_names, compare, convert_committed, convert_observation
from model_core.spec.episode import Episode
from model_core.spec.types import Observation

_NUMBERED = re.compile(r"[A-Za-z_. ]*?(\d+)")
_FIX = (
    "Fix: take it in for a recipe of that body, or record or export it again for this one; "
    "correct the description only where it is wrong about the recording"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyCheck:
    """What came of a comparison. findings: why nothing may be taken in. conversions: what must be applied to every episode.

    is_described: whether the recording says what its numbers mean; otherwise only names, widths and the rate could be compared.
    """

    findings: tuple[Finding, ...] = ()
    conversions: tuple[Conversion, ...] = ()
    is_described: bool = True


def check_dataset(reader: DatasetReader, body: EmbodimentSpec) -> BodyCheck:
    """Compare what a data set says of its body with `body`."""
    findings = tuple(inconsistencies(reader))
    if findings:
        return BodyCheck(findings=findings)
    own = reader.described
    stated, place = (own, layout.EXTENSION) if own is not None else (_stated(reader, body), layout.INFO)
    found = compare(body, stated)
    where = f"{reader.root.name}/{place}"
    findings = tuple(_finding(where, m, body) for m in found.refusals)
    return BodyCheck(findings=findings, conversions=found.conversions, is_described=own is not None)


def check_recording(name: str, episode: Episode, body: EmbodimentSpec) -> BodyCheck:
    """Compare what a cell's recording says of its body with `body`; recordings of older versions say nothing."""
    if episode.body is None or episode.body.name != body.name:  # another name is a finding of the structure already
        return BodyCheck(is_described=False)
    found = compare(body, episode.body)
    return BodyCheck(findings=tuple(_finding(name, m, body) for m in found.refusals), conversions=found.conversions)


def converted(episode: Episode, conversions: Sequence[Conversion], body: EmbodimentSpec) -> Episode:
    """The episode in the units, names and order of `body`. Arrays of a wrong width stay as they are: the inspection names them."""
    is_sound = episode.proprio_TP.shape[1:] == (len(body.proprio),)
    is_sound = is_sound and all(a.shape[1:] == (len(body.action),) for a in (episode.actions_TA, episode.executed_TA))
    if not conversions or not is_sound:
        return replace(episode, body=None)
    whole = Observation(images=episode.images, proprio_P=episode.proprio_TP, instruction=episode.instruction)  # all steps at once
    seen, names = convert_observation(conversions, whole, body), camera_names(conversions)
    return replace(
        episode,
        images=seen.images,
        proprio_TP=seen.proprio_P,
        actions_TA=convert_committed(conversions, episode.actions_TA),
        executed_TA=convert_committed(conversions, episode.executed_TA),
        depth_m={names.get(name, name): depth for name, depth in episode.depth_m.items()},
        geometry={names.get(name, name): geometry for name, geometry in episode.geometry.items()},
        body=None,
    )


def explain(conversion: Conversion) -> str:
    """A conversion of recordings, for a person."""
    return f"{conversion.kind}: {conversion.field}: {conversion.offered!r} is converted to {conversion.made_for!r}"


def inconsistencies(reader: DatasetReader) -> list[Finding]:
    """Why a data set cannot be judged by what it says of itself: no camera, or two descriptions that differ."""
    where = f"{reader.root.name}/{layout.INFO}"
    own = reader.described
    if own is None and not reader.cameras:
        return [Finding(check="camera_missing", where=where, reason="the set has no camera. Fix: record or export it with its images")]
    if own is None:
        return []
    return [_contradiction(where, m) for m in compare(own, _stated(reader, own)).refusals]


def _finding(where: str, mismatch: Mismatch, body: EmbodimentSpec) -> Finding:
    said = f"{mismatch.field}: expected {_short(mismatch.made_for)} as the body {body.name!r} of the recipe, got {_short(mismatch.offered)}"
    return Finding(check="body_differs", where=where, reason=f"{said}. {_FIX}")


def _contradiction(where: str, mismatch: Mismatch) -> Finding:
    said = f"{layout.EXTENSION} says {_short(mismatch.made_for)}, {layout.INFO} says {_short(mismatch.offered)}"
    reason = f"{mismatch.field}: the set describes itself twice and differently: {said}. Fix: correct the wrong one, or export it again"
    return Finding(check="body_differs", where=where, reason=reason)


def _short(value: object) -> str:
    """A value for a person; of dimensions and cameras only their names."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return f"{len(value)} ({', '.join(str(item['name']) for item in value)})"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _stated(reader: DatasetReader, base: EmbodimentSpec) -> EmbodimentSpec:
    """What meta/info.json states of the body; where it states nothing, the field of `base`."""
    rate = base.control_hz if math.isclose(reader.fps, base.control_hz, rel_tol=1e-6) else reader.fps
    proprio = _vector(base.proprio, reader.features.get(layout.STATE))
    action = _vector(base.action, reader.features.get(layout.ACTION))
    known = {camera.name: camera for camera in base.cameras}
    # without any camera there is nothing to compare: the inspection names the missing ones of every episode
    cameras = tuple(_camera(name, known.get(name), reader.picture_size(name)) for name in reader.cameras) or base.cameras
    hold = base.hold if len(action) == len(base.action) else (None,) * len(action)
    name = str(reader.info.get("robot_type") or base.name)
    return replace(base, name=name, control_hz=rate, proprio=proprio, action=action, cameras=cameras, hold=hold)


def _camera(name: str, known: CameraSpec | None, size: tuple[int, int] | None) -> CameraSpec:
    height, width = size or ((known.height, known.width) if known else (1, 1))
    return CameraSpec(name=name, width=width, height=height) if known is None else replace(known, width=width, height=height)


def _vector(base: VectorSpec, feature: Mapping[str, Any] | None) -> VectorSpec:
    if feature is None:
        return base
    count = width_of(feature) or len(base)
    unknown = [DimSpec(name=f"dimension {place}", unit="", low=0.0, high=1.0) for place in range(len(base), count)]
    dims = [*base.dims[:count], *unknown]
    names = names_of(feature)
    if len(names) == count and not _are_places(names):
        dims = [replace(dim, name=name) for dim, name in zip(dims, names, strict=True)]
    return replace(base, dims=tuple(dims))


def _are_places(names: Sequence[str]) -> bool:
    """Whether names are numbered in order ("motor_0", "motor_1", ...): then they say where a number stands, and not what it means."""
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(match[1]) for match in found if match is not None]
    return len(numbers) == len(names) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
