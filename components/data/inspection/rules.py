"""What an episode must satisfy: every rule once, with its threshold from one configuration (`ValidateConfig`).

Recording (`collect`) and taking in (`ingest`) apply `inspect_episode`: the structure, the basic rules (without which an episode is
unusable for any recipe), and depth, which is in memory there. The gate of the data set (`validate`) applies the structure and all rules;
it does not decode depth again. All three take the recipe's thresholds. Pure: no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.config.records import Finding
from components.data.inspection.clock import clock_rules
from components.data.inspection.motion import not_frozen, not_idle
from components.data.inspection.rule import EPISODES, InspectionRule, fault_of
from components.data.inspection.structure import structural_faults, unfinished_depth
from model_core.spec.contract import EmbodimentSpec, VectorSpec
from model_core.spec.episode import Episode


def rules_of(cfg: ValidateConfig, *, control_hz: float, cameras: Sequence[str], embodiment: EmbodimentSpec | None) -> list[InspectionRule]:
    """The rules for episodes of these cameras; without an embodiment nothing is known of ranges and clipping."""
    rules = clock_rules(cfg, control_hz)
    vectors = {} if embodiment is None else {"state": embodiment.proprio, "action": embodiment.action, "executed": embodiment.action}
    for name, spec in vectors.items():
        rules += finite_and_in_range(cfg, name, spec)
    rules.append(finite_gripper_position())
    for camera in cameras:
        rules += [not_black(cfg, camera), not_frozen(cfg, camera, embodiment)]
    rules += [plausible_length(cfg), not_idle(cfg, embodiment), gripper_in_view(cfg)]
    return [*rules, not_clipped(cfg, embodiment.action if embodiment else None)]


def inspect_episode(episode: Episode, embodiment: EmbodimentSpec, cfg: ValidateConfig | None = None) -> list[Finding]:
    """Why `episode` is unusable, by the basic rules; empty means that it may join a data set. Never raises for what is in the episode.

    It costs a few milliseconds. cfg: the thresholds (default: those of `ValidateConfig`).
    """
    found = [Finding(check=check, where=episode.episode_id, reason=reason) for check, reason in structural_faults(episode, embodiment)]
    if found:
        return found  # what follows needs arrays of the right shape
    cameras = [camera.name for camera in embodiment.cameras]
    rules = rules_of(cfg or ValidateConfig(), control_hz=embodiment.control_hz, cameras=cameras, embodiment=embodiment)
    faults = [(rule.check, fault_of(rule, episode)) for rule in rules if rule.is_basic]
    faults += [("not_finite", f"depth of camera {name!r} holds NaN or inf") for name in unfinished_depth(episode)]
    return [Finding(check=check, where=episode.episode_id, reason=reason) for check, reason in faults if reason]


# --- the rules of numbers and images ------------------------------------------------------------------------------------


def finite_and_in_range(cfg: ValidateConfig, name: str, spec: VectorSpec) -> list[InspectionRule]:
    """Numbers are numbers, and within the embodiment's limits with a slack of `cfg.range_slack` of the range."""
    values = {"state": "proprio_TP", "action": "actions_TA", "executed": "executed_TA"}[name]
    rules: list[InspectionRule] = []
    for dim, meant in enumerate(spec.dims):

        def measure(episode: Episode, dim: int = dim) -> NDArray[np.float64]:
            return getattr(episode, values)[:, dim].astype(np.float64)

        slack = cfg.range_slack * (meant.high - meant.low)
        limits = f"{name} {meant.name} is within {meant.low:g}..{meant.high:g} {meant.unit}"
        both = {"column": f"{name}.{dim}", "measure": measure, "is_basic": True}
        rules += [
            InspectionRule(check="not_finite", kind="present", meaning=f"{name} {meant.name} is a number in every frame", **both),
            InspectionRule(check="out_of_range", meaning=limits, low=meant.low - slack, high=meant.high + slack, **both),
        ]
    return rules


def finite_gripper_position() -> InspectionRule:
    """The gripper tip, where it is recorded, is a number in every frame: traces are projected from it."""

    def measure(episode: Episode) -> NDArray[np.float64]:
        return np.zeros(len(episode)) if episode.tcp_T3 is None else episode.tcp_T3.astype(np.float64).sum(axis=1)

    meaning = "the gripper position is a number in every frame"
    return InspectionRule(check="not_finite", column="tcp", kind="present", meaning=meaning, measure=measure, is_basic=True)


def not_black(cfg: ValidateConfig, camera: str) -> InspectionRule:
    """No image is black: a covered lens, a cable or a renderer that failed."""

    def measure(episode: Episode) -> NDArray[np.float64]:
        return episode.images[camera].mean(axis=(1, 2, 3))

    meaning = f"images of {camera} are not black (mean at least {cfg.black_mean:g} of 255)"
    return InspectionRule(
        check="black_frames",
        column=f"brightness.{camera}",
        meaning=meaning,
        measure=measure,
        low=cfg.black_mean,
        high=255.0,
        is_basic=True,
    )


def plausible_length(cfg: ValidateConfig) -> InspectionRule:
    """Neither a false start nor a recording that somebody forgot to stop."""
    meaning = f"{cfg.min_frames}..{cfg.max_frames} frames"
    return InspectionRule(
        check="episode_length", column="frames", table=EPISODES, meaning=meaning, measure=len, low=cfg.min_frames, high=cfg.max_frames
    )


def gripper_in_view(cfg: ValidateConfig) -> InspectionRule:
    """The gripper tip projects into the first camera's image in enough frames; holds where tip or calibration is not recorded."""

    def measure(episode: Episode) -> float:
        name = next(iter(episode.images), "")
        if episode.tcp_T3 is None or name not in episode.geometry:
            return 1.0
        geometry = episode.geometry[name]
        u_T, v_T, z_T = geometry.project(episode.tcp_T3).T
        inside_T = (u_T >= -0.5) & (u_T < geometry.width - 0.5) & (v_T >= -0.5) & (v_T < geometry.height - 0.5) & (z_T > 0)
        return float(inside_T.mean())

    meaning = f"the gripper is in the image in at least {cfg.min_gripper_visible:.0%} of the frames"
    low = cfg.min_gripper_visible
    return InspectionRule(
        check="gripper_visibility", column="gripper_visible", table=EPISODES, meaning=meaning, measure=measure, low=low, high=1.0
    )


def not_clipped(cfg: ValidateConfig, spec: VectorSpec | None) -> InspectionRule:
    """Few actions stand at a limit in every dimension: otherwise the controller only knows full speed."""

    def measure(episode: Episode) -> float:
        actions_TA = episode.actions_TA
        if spec is None or not actions_TA.size:
            return 0.0
        near_A = 1e-3 * (spec.high - spec.low)
        return float(((actions_TA <= spec.low + near_A) | (actions_TA >= spec.high - near_A)).all(axis=1).mean())

    meaning = f"at most {cfg.max_clipped_fraction:.0%} of the actions stand at their limits"
    high = cfg.max_clipped_fraction
    return InspectionRule(check="action_clipping", column="clipped", table=EPISODES, meaning=meaning, measure=measure, low=0.0, high=high)
