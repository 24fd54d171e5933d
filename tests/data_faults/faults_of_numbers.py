"""Faults of the numbers of state and action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.data_faults.faults import PLAIN, POSITION, changed
from tests.data_faults.made_set import MadeEpisode, MadeSet

Rng = np.random.Generator
Numbers = NDArray[Any]


def _state(change: Callable[[Numbers], Numbers]) -> Callable[[MadeEpisode], MadeEpisode]:
    return lambda one: replace(one, state_TP=change(one.state_TP.copy()).astype(np.float32))


def _action(change: Callable[[Numbers], Numbers]) -> Callable[[MadeEpisode], MadeEpisode]:
    return lambda one: replace(one, action_TA=change(one.action_TA.copy()).astype(np.float32))


def _at(row: int | slice, dim: int | slice, value: float) -> Callable[[Numbers], Numbers]:
    def put(numbers: Numbers) -> Numbers:
        numbers[row, dim] = value
        return numbers

    return put


@changed("not_finite", kinds=PLAIN, report="huggingface/lerobot#3280")
def an_action_is_no_number(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(2, _action(_at(13, 1, np.nan)))


@changed("not_finite", kinds=("delta_arm", "bimanual"))
def a_state_is_infinite(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(4, _state(_at(40, 0, np.inf)))


@changed("out_of_range", kinds=("ours",))
def a_state_lies_outside_of_the_limits(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(3, _state(lambda s: s + np.array([5, 0, 0, 0], np.float32)))


@changed("action_clipping", "saturated", "idle", kinds=("ours",))
def the_controller_only_knows_full_speed(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(1, _action(lambda a: np.where(a >= 0, 1.0, -1.0)))


@changed("saturated", kinds=("delta_arm", "bimanual"), report="openvla/openvla#315")
def actions_are_cut_at_a_limit(made: MadeSet, rng: Rng) -> MadeSet:
    def cut(a: Numbers) -> Numbers:
        limit = np.quantile(np.abs(a), 0.6, axis=0)
        return np.clip(a, -limit, limit)

    return made.change_all(_action(cut))


@changed("unit_changes", kinds=("leader_follower", "bimanual"), report="huggingface/lerobot#2968")
def some_episodes_are_in_another_angle_unit(made: MadeSet, rng: Rng) -> MadeSet:
    factor = np.pi / 180 if made.robot.startswith("so101") else 180 / np.pi
    return made.change(2, lambda one: _state(lambda s: s * factor)(_action(lambda a: a * factor)(one)))


@changed("unit_changes", kinds=("delta_arm",))
def some_episodes_are_in_millimetres(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(5, _state(lambda s: s * np.array([1000, 1000, 1000, 1, 1, 1, 1], np.float32)))


@changed("unit_changes", kinds=("with_outcome",))
def the_gripper_of_an_episode_is_in_percent(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(3, _state(lambda s: s * np.array([1, 1, 1, 1, 1, 1, 100], np.float32)))


@changed("mode_changes", "action_lag", kinds=POSITION, report="openvla/openvla#35")
def actions_of_an_episode_are_changes(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(4, lambda one: _action(lambda a: np.diff(a, axis=0, append=a[-1:]))(one))


@changed("direction_changes", kinds=("delta_arm", "leader_follower"), report="openvla/openvla#6")
def two_dimensions_of_an_episode_are_exchanged(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(3, _action(lambda a: a[:, [1, 0, *range(2, a.shape[1])]]))


@changed("direction_changes", kinds=("delta_arm", "bimanual"))
def a_dimension_of_an_episode_has_another_sign(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(5, _action(lambda a: a * np.where(np.arange(a.shape[1]) == 2, -1, 1)))


@changed("direction_changes", kinds=("delta_arm", "with_outcome"))
def the_gripper_of_an_episode_is_turned_round(made: MadeSet, rng: Rng) -> MadeSet:
    def turn(a: Numbers) -> Numbers:
        a[:, -1] = a[:, -1].max() + a[:, -1].min() - a[:, -1]
        return a

    return made.change(6, _action(turn))


@changed("constant_dimension", kinds=("delta_arm", "bimanual"), report="huggingface/lerobot#3280")
def a_dimension_never_changes(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(_action(_at(slice(None), 3, 0.0)))


@changed("stuck_dimension", kinds=("leader_follower", "bimanual", "with_outcome"))
def a_reading_stands(made: MadeSet, rng: Rng) -> MadeSet:
    def stick(s: Numbers) -> Numbers:
        s[18:, 2] = s[18, 2]
        return s

    return made.change(4, _state(stick))


@changed("spikes", kinds=("leader_follower", "bimanual"), report="robotology/mesh-support#1288")
def a_reading_leaves_for_one_frame(made: MadeSet, rng: Rng) -> MadeSet:
    def spike(s: Numbers) -> Numbers:
        s[33, 1] += 1.2 * np.ptp(s[:, 1])
        return s

    return made.change(2, _state(spike))


@changed("jumps", kinds=("leader_follower", "bimanual"), report="droid-dataset/droid#82")
def the_middle_of_an_episode_is_missing(made: MadeSet, rng: Rng) -> MadeSet:
    def jump(s: Numbers) -> Numbers:
        s[35:, 0] += 0.9 * np.ptp(s[:, 0])
        return s

    return made.change(6, _state(jump))


@changed("angle_wraps", kinds=("bimanual", "leader_follower"), report="huggingface/lerobot#3587")
def an_angle_jumps_by_a_turn(made: MadeSet, rng: Rng) -> MadeSet:
    turn = 2 * np.pi if made.robot == "aloha" else 360.0

    def wrap(s: Numbers) -> Numbers:
        angle = s[:, 4] / max(np.ptp(s[:, 4]), 1e-6) * turn * 0.6 + turn / 2
        s[:, 4] = (angle + turn / 2) % turn - turn / 2
        return s

    return made.change_all(_state(wrap))


@changed("float16_loss", kinds=("delta_arm", "leader_follower"))
def numbers_went_through_half_precision(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(_state(lambda s: s.astype(np.float16)))


@changed("coarse", kinds=("bimanual", "with_outcome"))
def numbers_were_cast_to_whole_ones(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(_state(lambda s: np.round(s * 4) / 4))


@changed("quantiles_saturate", kinds=("delta_arm",), report="PKU-Alignment/VLA-Arena#29")
def a_movement_is_rare(made: MadeSet, rng: Rng) -> MadeSet:
    rare = made.change_all(_action(lambda a: a * np.where(np.arange(a.shape[1]) == 4, 0.02, 1)))
    return rare.change(2, _action(_at(slice(30, 33), 4, 1.0)))


@changed("dimension_copied", kinds=("delta_arm", "leader_follower"))
def a_joint_stands_in_the_place_of_another(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(_state(lambda s: s[:, [0, 1, 1, *range(3, s.shape[1])]]))


@changed("offset_changes", "jumps", kinds=POSITION)
def a_joint_was_calibrated_anew(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(5, _state(lambda s: s + np.where(np.arange(s.shape[1]) == 1, 0.2 * np.ptp(s[:, 1]), 0)))


@changed("leader_offset", kinds=POSITION, report="huggingface/lerobot#3762")
def the_follower_hangs_beside_its_leader(made: MadeSet, rng: Rng) -> MadeSet:
    offset = 0.3 * np.abs(made.episodes[0].state_TP[:, 1]).max()
    return made.change_all(_state(lambda s: s - np.where(np.arange(s.shape[1]) == 1, offset, 0)))


@changed("zero_changes", kinds=("delta_arm", "bimanual"), report="huggingface/lerobot#1342")
def a_session_has_another_zero(made: MadeSet, rng: Rng) -> MadeSet:
    by = 1.5 * max(np.ptp(one.state_TP[:, 2]) for one in made.episodes)
    return made.change_from(3, _state(lambda s: s + np.where(np.arange(s.shape[1]) == 2, by, 0)))


@changed("gripper_changes", kinds=("delta_arm",), report="Positronic-Robotics/positronic#456")
def a_session_has_another_gripper(made: MadeSet, rng: Rng) -> MadeSet:
    def turned(values: Numbers) -> Numbers:
        values[:, -1] = values[:, -1].max() + values[:, -1].min() - values[:, -1]
        return values

    return made.change_from(4, lambda one: _state(turned)(_action(turned)(one)))
