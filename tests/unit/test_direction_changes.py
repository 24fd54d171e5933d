"""The rule of changed directions: readings that follow an action by chance are no exchange, an exchange and another sign are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.numbers.following import direction_changes
from components.data.inspection.measurements.episode import measure_rows
from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.record import SetMeasurements
from components.data.lerobot import layout

LENGTH, GRIPPER = 30, 2


def actions(number: int) -> NDArray[np.float64]:
    """(T, 3): steps of x and pitch, and a gripper that closes once and starts to move back at the end."""
    rng = np.random.default_rng([11, number])
    action = rng.normal(size=(LENGTH, 3)).cumsum(axis=0)
    action[:, GRIPPER] = np.where(np.arange(LENGTH) < 14 + number, 1.0, -1.0)
    return action


def told(last: NDArray[np.float64]) -> list[tuple[str, str]]:
    """What the rule says of four sound episodes and one of these actions, whose state adds up what `actions` would have moved it."""
    episodes: list[RawEpisode] = []
    for number in range(5):
        action = actions(number)
        if number == 4:
            action[:, 1] = 0.5 * action[:, GRIPPER]  # pitch turns with the gripper, for as long
        state = np.concatenate([np.zeros((1, 3)), action.cumsum(axis=0)[:-1]])
        shown = last if number == 4 else action
        times = np.arange(LENGTH) / 20
        vectors = {layout.STATE: state, layout.ACTION: shown}
        episodes.append(RawEpisode(episode_id=f"e{number}", number=number, fps=20, times_T=times, stamps_T=times, vectors=vectors))
    measured = SetMeasurements(name="arm", fps=20, episodes=tuple(measure_rows(episodes)))
    return [(fault.where, fault.reason) for fault in direction_changes(measured, ValidateConfig()).faults]


def with_pitch() -> NDArray[np.float64]:
    action = actions(4)
    action[:, 1] = 0.5 * action[:, GRIPPER]
    return action


def test_a_reading_that_follows_another_action_as_well_is_no_exchange():
    action = with_pitch()
    action[20:, 1] += 1e-3  # the gripper's own reading follows a little less closely than pitch
    assert told(action) == []
    slow = with_pitch()
    slow[:, GRIPPER] *= 1 + 1e-3 * np.sin(np.arange(LENGTH))
    assert told(slow) == []


def test_another_sign_and_an_exchange_are_named_where_another_reading_follows_as_well():
    turned = with_pitch() * (1, 1, -1)
    assert told(turned) == [("e4", f"{layout.ACTION}[2] moves the state the other way")]
    exchanged = with_pitch()[:, [2, 1, 0]]
    assert [where for where, _ in told(exchanged)] == ["e4", "e4"]
