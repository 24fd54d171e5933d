"""Faults of clocks, of delays, and of films beside their rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.data_faults.faults import ALL, PLAIN, POSITION, changed, damaged
from tests.data_faults.folder_edits import change_column, change_entries, films
from tests.data_faults.made_set import MadeEpisode, MadeSet, write_film

Rng = np.random.Generator


def _times(made: MadeSet, place: int, change: Any) -> MadeSet:
    def of_one(one: MadeEpisode) -> MadeEpisode:
        times = np.arange(len(one)) / made.fps if one.times_T is None else one.times_T
        return replace(one, times_T=change(np.array(times)))

    return made.change(place, of_one)


@changed("timestamps", "time_gap", kinds=ALL, report="huggingface/lerobot#933")
def a_gap_in_the_clock(made: MadeSet, rng: Rng) -> MadeSet:
    return _times(made, 2, lambda t: t + np.where(np.arange(len(t)) >= 20, 0.4, 0.0))


@changed("time_backwards", "timestamps", kinds=("delta_arm", "bimanual"), report="huggingface/lerobot#1875")
def a_time_repeats(made: MadeSet, rng: Rng) -> MadeSet:
    return _times(made, 3, lambda t: np.where(np.arange(len(t)) == 25, np.roll(t, 1), t))


@changed("time_backwards", "timestamps")
def times_run_back(made: MadeSet, rng: Rng) -> MadeSet:
    return _times(made, 1, lambda t: np.where(np.arange(len(t)) == 30, t - 0.3, t))


@changed("time_jitter", "timestamps", kinds=("delta_arm", "ours"), report="huggingface/lerobot#4423")
def the_recorder_is_unsteady(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(
        lambda one: replace(one, times_T=np.sort(np.arange(len(one)) / made.fps + rng.uniform(-0.3, 0.3, len(one)) / made.fps))
    )


@changed("clock_rate", "timestamps", "stamp_drift", kinds=("delta_arm", "ours"), report="almond-bot/axol#138")
def the_loop_runs_too_slow(made: MadeSet, rng: Rng) -> MadeSet:
    return _times(made, 4, lambda t: t * 1.06)


@changed("clock_rate", "timestamps", "video_rate", "stamp_drift", report="Hebbian-Robotics/hflow#461")
def the_rate_is_stated_as_another(made: MadeSet, rng: Rng) -> MadeSet:
    stamped = made.change_all(lambda one: replace(one, times_T=np.arange(len(one)) / made.fps))
    return replace(stamped, info={**made.info, "fps": made.fps // 2})


@damaged("stamp_drift", "timestamps", "clock_rate", report="huggingface/lerobot#3513")
def stamps_drift_beside_their_frames(root: Path, rng: Rng) -> None:
    change_column(root, "timestamp", lambda t: (t * 1.02).astype(np.float32))


@changed("not_finite", "timestamps")
def a_time_is_no_number(made: MadeSet, rng: Rng) -> MadeSet:
    return _times(made, 2, lambda t: np.where(np.arange(len(t)) == 12, np.nan, t))


def _shifted(one: MadeEpisode, by: int) -> MadeEpisode:
    """Actions that come `by` rows later than they were given."""
    return replace(one.part(slice(by, None)), action_TA=one.action_TA[:-by])


@changed("action_lag", kinds=(*POSITION, "delta_arm"), report="yanlai00/bridge_data_robot_infra#1")
def actions_of_an_episode_come_late(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(3, lambda one: _shifted(one, 6))


@changed("action_lag", kinds=POSITION)
def actions_of_all_episodes_come_late(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: _shifted(one, 8))


@changed("lag_changes", kinds=(*POSITION, "delta_arm"), report="huggingface/lerobot#636")
def the_recorder_was_updated_in_between(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_from(4, lambda one: _shifted(one, 1))


@changed("video_lag", kinds=("leader_follower", "with_outcome"), report="RoboDojo-Benchmark/RoboDojo#38")
def pictures_of_an_episode_come_late(made: MadeSet, rng: Rng) -> MadeSet:
    def delay(one: MadeEpisode) -> MadeEpisode:
        return replace(one, frames={name: np.concatenate([f[:1].repeat(6, 0), f[:-6]]) for name, f in one.frames.items()})

    return made.change(5, delay)


@changed("state_repeats", kinds=("delta_arm", "leader_follower", "with_outcome"))
def the_state_is_read_every_third_row(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(2, lambda one: replace(one, state_TP=one.state_TP[np.arange(len(one)) // 3 * 3]))


@changed("rows_repeat", "state_repeats", report="huggingface/lerobot#4099")
def rows_were_repeated_to_keep_the_rate(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(4, lambda one: one.part(np.arange(len(one)) // 2 * 2))


@damaged("video_frames", kinds=("delta_arm", "leader_follower"), report="almond-bot/axol#256")
def a_picture_was_lost(root: Path, rng: Rng) -> None:
    _rewrite(root, lambda frames: np.delete(frames, 100, axis=0))


@damaged("video_frames", kinds=("leader_follower", "bimanual"))
def a_picture_was_written_twice(root: Path, rng: Rng) -> None:
    _rewrite(root, lambda frames: np.insert(frames, 60, frames[60], axis=0))


@damaged("video_rate", "video_frames", kinds=PLAIN)
def the_film_runs_at_another_rate(root: Path, rng: Rng) -> None:
    _rewrite(root, lambda frames: frames, faster=1.25)


@damaged("video_start", kinds=("delta_arm", "leader_follower"), report="huggingface/lerobot#3177")
def starts_in_the_film_drift(root: Path, rng: Rng) -> None:
    def drift(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, row in enumerate(rows):
            for name in [n for n in row if n.endswith(("from_timestamp", "to_timestamp"))]:
                row[name] += number * 0.008
        return rows

    change_entries(root, drift)


@damaged("video_overlap", "video_start", kinds=("delta_arm", "with_outcome"), report="huggingface/lerobot#2447")
def two_episodes_take_the_same_pictures(root: Path, rng: Rng) -> None:
    def overlap(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for name in [n for n in rows[3] if n.endswith(("from_timestamp", "to_timestamp"))]:
            first = rows[2][name.rpartition("/")[0] + "/from_timestamp"]
            rows[3][name] += first - rows[3][name.rpartition("/")[0] + "/from_timestamp"] if name.endswith("to_timestamp") else 0.0
        for name in [n for n in rows[3] if n.endswith("from_timestamp")]:
            rows[3][name] = rows[2][name]
        return rows

    change_entries(root, overlap)


def _rewrite(root: Path, change: Any, *, faster: float = 1.0) -> None:
    """Encode the first film of the first camera again."""
    import av

    path = films(root)[0]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, is_lossy = float(stream.average_rate or 1), stream.codec_context.pix_fmt == "yuv420p"
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    write_film(path, change(frames), round(rate * faster), lossy=is_lossy)
