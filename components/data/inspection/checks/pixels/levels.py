"""Single pictures: standing, black, white, empty, unlike their neighbours, or blurred."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.pixels.shared import FEW_EPISODES, NO_PICTURE, REMOVE, median_of, with_pictures
from components.data.inspection.checks.verdict import DEFECT, RISK, Verdict, check, of_pictures
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements


@check(
    "frozen_frames",
    severity=DEFECT,
    reason="a camera that stands while the arm moves teaches that pictures do not matter",
    fix=REMOVE,
    source="XenseRobotics-AI/xense-taccap-lerobot#61",
)
def frozen_frames(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Pictures change while the arm is commanded to move."""

    def judge(e: EpisodeMeasurements, camera: str) -> str:
        run = e.frozen.get(camera, 0)
        return f"{run} pictures in a row equal the one before while the arm is commanded" if run > cfg.frozen_frames_limit else ""

    return of_pictures(m, judge, NO_PICTURE)


@check(
    "black_frames",
    severity=DEFECT,
    reason="a covered lens, a cable or a renderer that failed",
    fix=REMOVE,
    source="ARISE-Initiative/robosuite#40",
)
def black_frames(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No picture is black."""
    return of_pictures(m, _level(lambda t: t < cfg.black_mean, f"below {cfg.black_mean:g} of 255"), NO_PICTURE)


@check(
    "white_frames",
    severity=DEFECT,
    reason="exposure ran away, and nothing can be seen",
    fix=REMOVE,
    source="huggingface/blog#2839",
)
def white_frames(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No picture is overexposed as a whole."""
    return of_pictures(m, _level(lambda t: t > cfg.inspection.white_mean, f"above {cfg.inspection.white_mean:g} of 255"), NO_PICTURE)


def _level(is_bad: Callable[[NDArray[np.float64]], NDArray[np.bool_]], meant: str) -> Callable[[EpisodeMeasurements, str], str]:
    def judge(e: EpisodeMeasurements, camera: str) -> str:
        bad = np.flatnonzero(is_bad(e.cameras[camera].mean_T))
        return f"{bad.size} pictures have a mean {meant}, first at frame {int(bad[0])}" if bad.size else ""

    return judge


@check(
    "empty_frames",
    severity=RISK,
    reason="one colour everywhere is a placeholder or a decoder that failed",
    fix=REMOVE,
    source="facebookresearch/co3d#58",
)
def empty_frames(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """A picture that is neither black nor white shows more than one colour."""

    def judge(e: EpisodeMeasurements, camera: str) -> str:
        found = e.cameras[camera]
        is_grey = (found.mean_T >= cfg.black_mean) & (found.mean_T <= cfg.inspection.white_mean)
        bad = np.flatnonzero(is_grey & (found.spread_T < cfg.inspection.min_spread))
        return f"{bad.size} pictures show one colour, first at frame {int(bad[0])}" if bad.size else ""

    return of_pictures(m, judge, NO_PICTURE)


@check(
    "flash_frames",
    severity=RISK,
    reason="a single picture that fits neither of its neighbours is damaged, or another camera's",
    fix="replace or remove the picture's frame",
    source="allenai/molmoact#25",
)
def flash_frames(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No single picture differs from both neighbours while these are alike."""

    def judge(e: EpisodeMeasurements, camera: str) -> str | None:
        found = e.cameras[camera]
        if len(found) < 5:
            return None
        there, back, across = found.change_T[1:-1], found.change_T[2:], found.skip_T[2:]
        usual = float(np.median(found.change_T[1:]))
        size = np.minimum(there, back)
        bad = np.flatnonzero((size > cfg.inspection.flash + 4 * usual) & (across < 0.5 * size))
        return f"{bad.size} single pictures fit neither neighbour, first at frame {int(bad[0]) + 1}" if bad.size else ""

    return of_pictures(m, judge, NO_PICTURE)


@check(
    "scene_cut",
    severity=RISK,
    reason="within one episode the camera moved, or the pictures go on with another episode's",
    fix="cut the episode there, or export it again from its recording",
    source="huggingface/lerobot#4496",
)
def scene_cut(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The view does not change from one frame to the next as a whole."""

    def judge(e: EpisodeMeasurements, camera: str) -> str | None:
        change_T = e.cameras[camera].change_T
        if len(change_T) < 5:
            return None
        limit = cfg.inspection.cut + 4 * float(np.median(change_T[1:]))
        bad = np.flatnonzero(change_T > limit)
        return f"the view changes by {change_T[bad[0]]:.0f} levels at frame {int(bad[0])}" if bad.size else ""

    return of_pictures(m, judge, NO_PICTURE)


@check(
    "blurred",
    severity=RISK,
    reason="the lens lost its focus or is dirty",
    fix="look at the camera, and remove the episode",
    source="huggingface/blog#2839",
)
def blurred(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Pictures are about as sharp as in most episodes."""
    usual = {name: median_of([e.cameras[name].detail for e in m.episodes if name in e.cameras]) for name in m.cameras}

    def judge(e: EpisodeMeasurements, camera: str) -> str | None:
        if len(with_pictures(m, camera)) < 3 or not usual[camera]:
            return None
        ratio = e.cameras[camera].detail / usual[camera]
        return f"its pictures have {ratio:.0%} of the detail of most episodes" if ratio < cfg.inspection.min_detail else ""

    return of_pictures(m, judge, FEW_EPISODES)
