"""What a camera shows beside what it shows in most episodes: exchanged, doubled, turned, of other channels, of another episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.pixels.shared import FEW_EPISODES, NO_PICTURE, median_of, with_pictures
from components.data.inspection.checks.verdict import DEFECT, RISK, Fault, Verdict, camera_name, check, of_pictures
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements


@check(
    "camera_duplicated",
    severity=DEFECT,
    reason="one camera was recorded in place of two, so one view is missing",
    fix="record the episode again with both cameras",
    source="JdeRobot/base#783",
)
def camera_duplicated(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No two cameras show the same picture."""
    faults: list[Fault] = []
    looked = 0
    for e in m.episodes:
        names = [name for name in m.cameras if name in e.cameras and len(e.cameras[name])]
        looked += len(names) > 1
        for place, one in enumerate(names):
            for other in names[place + 1 :]:
                a, b = e.cameras[one], e.cameras[other]
                same = a.digest == b.digest or (
                    len(a) == len(b) and a.kept_N.shape == b.kept_N.shape and np.abs(a.kept_N - b.kept_N).max() < 2.0
                )
                if same:
                    faults.append(Fault(where=e.episode_id, reason=f"cameras {camera_name(one)} and {camera_name(other)} show the same"))
    return Verdict(faults=tuple(faults), looked_at=looked, of=len(m.episodes), missing="" if looked else "no two cameras were looked at")


@check(
    "camera_swapped",
    severity=DEFECT,
    reason="two cameras changed places for some episodes, and a policy takes one for the other",
    fix="exchange the two films of these episodes",
    source="open-edge-platform/physical-ai-studio#497",
)
def camera_swapped(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """A camera shows what it shows in most episodes, and not what another shows there."""
    usual = {name: _usual(m, name) for name in m.cameras if len(with_pictures(m, name)) >= 3}
    faults: list[Fault] = []
    looked = 0
    for e in m.episodes:
        mine = {name: e.cameras[name].picture_SS3 for name in usual if name in e.cameras and len(e.cameras[name])}
        looked += len(mine) > 1
        for name, picture in mine.items():
            own = _far(picture, usual[name])
            near = {other: _far(picture, usual[other]) for other in mine if other != name}
            other = min(near, key=lambda one: near[one], default="")
            if other and own > cfg.inspection.min_difference and near[other] < cfg.inspection.match * own:
                faults.append(
                    Fault(where=e.episode_id, reason=f"camera {camera_name(name)} shows what {camera_name(other)} shows in most episodes")
                )
    return Verdict(
        faults=tuple(faults),
        looked_at=looked,
        of=len(m.episodes),
        missing="" if looked else f"no two cameras were looked at, or {FEW_EPISODES}",
    )


@check(
    "channel_order",
    severity=DEFECT,
    reason="red and blue are exchanged, so colours that an instruction names are others",
    fix="exchange the channels of these episodes (BGR was written as RGB)",
    source="OpenGalaxea/GalaxeaLeRobotToolkit#2",
)
def channel_order(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Red and blue are in the order of most episodes."""
    return _changed(m, cfg, {"with red and blue exchanged": lambda p: p[..., ::-1]})


@check(
    "camera_turned",
    severity=RISK,
    reason="the camera was mounted another way for some episodes",
    fix="turn the pictures of these episodes, or leave them out",
    source="meta-pytorch/torchcodec#1084",
)
def camera_turned(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Pictures stand as in most episodes."""
    ways = {
        "mirrored left to right": lambda p: p[:, ::-1],
        "turned upside down": lambda p: p[::-1],
        "turned by half": lambda p: p[::-1, ::-1],
        "turned by a quarter": lambda p: np.rot90(p),
        "turned by three quarters": lambda p: np.rot90(p, 3),
    }
    return _changed(m, cfg, ways)


def _changed(m: SetMeasurements, cfg: ValidateConfig, ways: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]) -> Verdict:
    """Episodes whose mean picture fits that of most episodes only after one of the `ways`."""
    usual = {name: _usual(m, name) for name in m.cameras if len(with_pictures(m, name)) >= 3}

    def judge(e: EpisodeMeasurements, camera: str) -> str | None:
        if camera not in usual:
            return None
        picture = e.cameras[camera].picture_SS3
        far = {way: _far(change(picture), usual[camera]) for way, change in ways.items()}
        way = min(far, key=lambda one: far[one])
        own = _far(picture, usual[camera])
        if _far(ways[way](usual[camera]), usual[camera]) < cfg.inspection.min_difference:
            return None  # the view looks alike both ways
        return f"its pictures fit those of most episodes only {way}" if far[way] < cfg.inspection.match * own else ""

    return of_pictures(m, judge, f"{FEW_EPISODES}, or the view looks alike both ways")


@check(
    "view_unlike",
    severity=RISK,
    reason="the camera stands elsewhere, or the film belongs to another set",
    fix="look at the episode; leave it out if the camera was moved by accident",
    source="huggingface/lerobot#4496",
)
def view_unlike(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The mean picture is about that of most episodes."""
    usual = {name: _usual(m, name) for name in m.cameras if len(with_pictures(m, name)) >= 4}
    spread = {name: median_of([_far(e.cameras[name].picture_SS3, usual[name]) for e in with_pictures(m, name)]) for name in usual}

    def judge(e: EpisodeMeasurements, camera: str) -> str | None:
        if camera not in usual:
            return None
        far = _far(e.cameras[camera].picture_SS3, usual[camera])
        limit = 2 * cfg.inspection.min_difference + 4 * spread[camera]
        return (
            f"its mean picture differs by {far:.0f} levels from that of most episodes, usual are {spread[camera]:.1f}"
            if far > limit
            else ""
        )

    return of_pictures(m, judge, "there are less than four episodes to compare with")


@check(
    "film_of_another",
    severity=RISK,
    reason="two episodes with different actions show the same film, so one shows pictures of another",
    fix="export the data set again from its recordings",
    source="huggingface/lerobot#168",
)
def film_of_another(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No two episodes with different states have the same pictures."""
    seen: dict[tuple[str, str], EpisodeMeasurements] = {}
    faults: list[Fault] = []
    looked = 0
    for e in m.episodes:
        looked += bool(e.cameras)
        for name, camera in e.cameras.items():
            if not camera.digest or camera.is_same_T[1:].all():
                continue
            first = seen.setdefault((name, camera.digest), e)
            if first is not e and first.meaning.state_digest != e.meaning.state_digest:
                faults.append(Fault(where=e.episode_id, reason=f"camera {camera_name(name)} shows the pictures of {first.episode_id}"))
    return Verdict(faults=tuple(faults), looked_at=looked, of=len(m.episodes), missing="" if looked else NO_PICTURE)


def _usual(m: SetMeasurements, camera: str) -> NDArray[np.float64]:
    return np.median(np.stack([e.cameras[camera].picture_SS3 for e in with_pictures(m, camera)]), axis=0)


def _far(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).mean())
