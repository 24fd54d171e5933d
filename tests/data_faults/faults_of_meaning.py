"""Faults of tasks, outcomes, copies and standing still."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data_faults.faults import ALL, PLAIN, changed, damaged
from tests.data_faults.folder_edits import change_column, change_entries, change_table
from tests.data_faults.made_set import MadeEpisode, MadeSet

Rng = np.random.Generator


@damaged("unknown_task", kinds=ALL, report="huggingface/lerobot#4401")
def a_task_is_missing_from_the_table(root: Path, rng: Rng) -> None:
    change_column(root, "task_index", lambda values: np.where(values == 1, 7, values))


@damaged("unknown_task", "task_differs")
def an_episode_lists_a_task_that_the_table_lacks(root: Path, rng: Rng) -> None:
    change_entries(root, lambda rows: [row | ({"tasks": ["fold the towel"]} if n == 2 else {}) for n, row in enumerate(rows)])


@damaged("task_several", report="macrodata-labs/refiner#187")
def an_episode_holds_two_tasks(root: Path, rng: Rng) -> None:
    change_column(root, "task_index", lambda values: np.where(np.arange(len(values)) < 20, 1 - values, values))


@damaged("task_differs", report="huggingface/lerobot#4519")
def the_list_names_another_task_than_the_frames(root: Path, rng: Rng) -> None:
    change_entries(root, lambda rows: [row | ({"tasks": rows[1]["tasks"]} if n == 4 else {}) for n, row in enumerate(rows)])


@changed("instruction_missing", kinds=PLAIN)
def an_instruction_is_empty(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: replace(one, task="" if one.task == made.episodes[0].task else one.task))


@changed("instruction_placeholder", kinds=("delta_arm", "leader_follower"))
def an_instruction_says_nothing(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: replace(one, task="task"))


@changed("instruction_placeholder", kinds=("bimanual", "with_outcome"))
def an_instruction_was_decoded_wrongly(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: replace(one, task="ö".encode().decode("latin-1") + one.task))


@damaged("shared_sentence", report="huggingface/lerobot#4409")
def two_tasks_have_one_sentence(root: Path, rng: Rng) -> None:
    def copy(table: pa.Table) -> pa.Table:
        texts = table["task"].to_pylist()
        return table.set_column(table.column_names.index("task"), "task", pa.array([texts[0], texts[0] + "."]))

    change_table(root / "meta/tasks.parquet", copy)
    table = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    texts = {row["task_index"]: row["task"] for row in table}
    change_entries(root, lambda rows: [row | {"tasks": [texts[n % 2]]} for n, row in enumerate(rows)])


@damaged("task_unused", "counts")
def a_task_has_no_episode(root: Path, rng: Rng) -> None:
    path = root / "meta/tasks.parquet"
    change_table(path, lambda t: pa.concat_tables([t, pa.table({"task_index": np.array([2]), "task": pa.array(["wipe the table"])})]))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_tasks": 3}))


@changed("column_aliasing", kinds=("leader_follower", "bimanual"), report="NVIDIA/Isaac-GR00T#137")
def the_action_is_the_state(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: replace(one, action_TA=one.state_TP.copy()))


@changed("column_copies", kinds=("with_outcome",), report="huggingface/lerobot#4402")
def a_column_of_text_copies_another(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: replace(one, columns={**one.columns, "building": one.columns["collector"]}))


@changed("outcome_contradicts", kinds=("with_outcome",), report="jashshah999/lerobot-doctor#6")
def success_is_said_twice_and_differently(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change_all(lambda one: replace(one, fields={**one.fields, "success": False}))


@changed("not_solved", kinds=("with_outcome",))
def an_episode_failed(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(2, lambda one: replace(one, columns={**one.columns, "next.success": [False] * len(one)}))


@changed("end_misplaced", kinds=("with_outcome",))
def an_episode_ends_in_its_middle(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(3, lambda one: replace(one, columns={**one.columns, "next.done": [n == 20 for n in range(len(one))]}))


@changed("instruction_against_motion", kinds=("delta_arm", "leader_follower", "with_outcome"))
def an_instruction_is_that_of_another_movement(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(4, lambda one: replace(one, task=made.episodes[1].task))


def _still(one: MadeEpisode, head: int, tail: int) -> MadeEpisode:
    """Frames without movement before and after, as a recorder that was started early and stopped late leaves them."""
    places = np.r_[np.zeros(head, int), np.arange(len(one)), np.full(tail, len(one) - 1)]
    padded = one.part(places)
    action = padded.action_TA.copy()
    if one.action_TA.shape != one.state_TP.shape or np.abs(one.action_TA - one.state_TP).mean() > 0.2 * np.abs(one.state_TP).mean():
        grip = action[:, -1].copy()
        action[:head], action[len(places) - tail :] = 0.0, 0.0
        action[:, -1] = grip
    return replace(padded, action_TA=action)


@changed("idle_padding", "idle", kinds=PLAIN, report="huggingface/lerobot#2184")
def the_robot_waits_at_the_end(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(3, lambda one: _still(one, 0, 40))


@changed("idle_padding", "idle", kinds=("delta_arm", "ours"))
def the_robot_waits_at_the_start(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(1, lambda one: _still(one, 40, 0))


@changed("idle", "idle_padding", kinds=("delta_arm", "ours"), report="droid-dataset/droid#82")
def the_robot_mostly_stands(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(2, lambda one: _still(one, 60, 60))


@changed("duplicate", kinds=ALL)
def an_episode_is_there_twice(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(5, lambda one: made.episodes[3])


@changed("near_duplicate", kinds=("delta_arm", "leader_follower"), report="starVLA/VLAct#4")
def an_episode_is_there_twice_with_noise(made: MadeSet, rng: Rng) -> MadeSet:
    one = made.episodes[3]
    span = np.ptp(one.state_TP, axis=0)
    copy = replace(one, state_TP=(one.state_TP + rng.normal(0, 1e-4, one.state_TP.shape) * span).astype(np.float32))
    return made.change(6, lambda _: copy)


@changed("duplicate", kinds=("delta_arm", "leader_follower"))
def one_recording_has_two_instructions(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(4, lambda one: replace(made.episodes[2], task=made.episodes[1].task))


@changed("split_leaks", kinds=("with_outcome",), report="jashshah999/lerobot-doctor#6")
def a_session_lies_on_both_sides_of_the_split(made: MadeSet, rng: Rng) -> MadeSet:
    last = len(made.episodes) - 1
    return made.change(last, lambda one: replace(one, fields={**one.fields, "session": made.episodes[0].fields["session"]}))


@changed("too_short", "episode_length", kinds=("delta_arm",))
def an_episode_is_a_false_start(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(2, lambda one: one.part(slice(4)))


@changed("part_of_another", kinds=("delta_arm", "leader_follower"), report="droid-dataset/droid#66")
def an_episode_is_there_again_without_its_beginning(made: MadeSet, rng: Rng) -> MadeSet:
    return made.change(5, lambda _: made.episodes[1].part(slice(7, None)))
