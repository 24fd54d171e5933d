"""Faults of files, counts, rows and features."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.data_faults.edits_for_blind_faults import copy_film
from tests.data_faults.faults import ALL, damaged
from tests.data_faults.folder_edits import change_column, change_entries, change_json, change_table, cut_file, data_files, films

Rng = np.random.Generator


@damaged("file_missing", kinds=ALL, report="huggingface/lerobot#2264")
def film_is_missing(root: Path, rng: Rng) -> None:
    films(root)[-1].unlink()


@damaged("file_missing", kinds=("bimanual",))
def data_file_is_missing(root: Path, rng: Rng) -> None:
    data_files(root)[1].unlink()


@damaged("unreadable", kinds=("delta_arm", "ours"), report="huggingface/lerobot#2495")
def data_file_has_no_footer(root: Path, rng: Rng) -> None:
    cut_file(data_files(root)[-1], 0.7)


@damaged("unreadable", report="LightwheelAI/leisaac#129")
def episode_list_has_no_footer(root: Path, rng: Rng) -> None:
    cut_file(next((root / "meta/episodes").rglob("*.parquet")), 0.6)


@damaged("video_unreadable", "video_frames", "video_decodes", kinds=("delta_arm", "bimanual"), report="CMU-Robotics-Club/RoboBuggy#339")
def film_is_cut_short(root: Path, rng: Rng) -> None:
    cut_file(films(root)[-1], 0.6)


@damaged("counts")
def frames_are_counted_wrongly(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d.update(total_frames=d["total_frames"] + 7))


@damaged("counts", report="strands-labs/robots#708")
def episodes_are_counted_as_one(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d.update(total_episodes=1))


@damaged("counts", "row_order", report="almond-bot/axol#158")
def an_episode_is_lost_from_the_list(root: Path, rng: Rng) -> None:
    change_entries(root, lambda rows: rows[:2] + rows[3:])


@damaged("row_order", report="huggingface/lerobot#4143")
def starts_of_two_episodes_are_exchanged(root: Path, rng: Rng) -> None:
    def exchange(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for name in ("dataset_from_index", "dataset_to_index"):
            rows[1][name], rows[2][name] = rows[2][name], rows[1][name]
        return rows

    change_entries(root, exchange)


@damaged("index", kinds=("bimanual",), report="huggingface/lerobot#4401")
def index_starts_anew_in_each_file(root: Path, rng: Rng) -> None:
    change_column(root, "index", lambda values: values - values[0])


@damaged("row_order", "counts", kinds=("delta_arm", "with_outcome"), report="almond-bot/axol#193")
def one_row_is_lost(root: Path, rng: Rng) -> None:
    change_table(data_files(root)[0], lambda table: pa.concat_tables([table.slice(0, 30), table.slice(31)]))


@damaged("row_order")
def rows_are_in_the_wrong_order(root: Path, rng: Rng) -> None:
    change_table(data_files(root)[0], lambda t: t.take(pa.array([*range(10), 11, 10, *range(12, t.num_rows)])))


@damaged("column_missing", report="huggingface/lerobot#3039")
def a_feature_has_no_column(root: Path, rng: Rng) -> None:
    change_table(data_files(root)[0], lambda table: table.drop_columns(["action"]))


@damaged("column_width", report="OpenGalaxea/GalaxeaVLA#32")
def names_are_one_too_many(root: Path, rng: Rng) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["features"]["action"]["names"].append("extra")

    change_json(root / "meta/info.json", rename)


@damaged("file_unnamed")
def a_data_file_is_left_over(root: Path, rng: Rng) -> None:
    shutil.copy(data_files(root)[0], data_files(root)[0].with_name("file-009.parquet"))


@damaged("version")
def version_is_that_of_older_files(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d.update(codebase_version="v2.1"))


@damaged("values_missing", "not_finite")
def a_row_has_no_state(root: Path, rng: Rng) -> None:
    def empty(table: pa.Table) -> pa.Table:
        rows = table["observation.state"].to_pylist()
        rows[17] = None
        return table.set_column(table.column_names.index("observation.state"), "observation.state", pa.array(rows))

    change_table(data_files(root)[0], empty)


@damaged("episode_list")
def an_episode_is_listed_twice(root: Path, rng: Rng) -> None:
    change_entries(root, lambda rows: [*rows, rows[3]])


@damaged("camera_shape", report="OpenDriveLab/AgiBot-World#74")
def pictures_have_another_size_than_stated(root: Path, rng: Rng) -> None:
    def resize(document: dict[str, Any]) -> None:
        key = next(name for name, f in document["features"].items() if f["dtype"] == "video")
        document["features"][key]["shape"] = [48, 64, 3]

    change_json(root / "meta/info.json", resize)


@damaged("info_field")
def the_rate_is_no_number(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d.update(fps="30"))


@damaged("column_dtype")
def a_column_is_of_whole_numbers(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d["features"]["timestamp"].update(dtype="int64"))


@damaged("splits", kinds=("with_outcome",))
def splits_overlap(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d.update(splits={"train": "0:6", "val": "4:7"}))


@damaged("stale_statistics", report="huggingface/lerobot#3508")
def statistics_are_of_other_data(root: Path, rng: Rng) -> None:
    def shift(document: dict[str, Any]) -> None:
        document["action"]["max"] = [value * 0.6 for value in document["action"]["max"]]

    change_json(root / "meta/stats.json", shift)


@damaged("statistics_count", kinds=("delta_arm", "ours"))
def statistics_count_fewer_frames(root: Path, rng: Rng) -> None:
    change_json(root / "meta/stats.json", lambda d: d["action"].update(count=[100]))


@damaged("quantiles_averaged", "quantiles_stale", report="huggingface/lerobot#3804")
def quantiles_are_means_over_episodes(root: Path, rng: Rng) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(data_files(root)[0])
    whose, action = np.array(table["episode_index"]), np.array(table["action"].to_pylist())
    parts = [action[whose == number] for number in np.unique(whose)]

    def average(document: dict[str, Any]) -> None:
        for name, share in (("q01", 0.01), ("q99", 0.99)):
            total = sum(np.quantile(part, share, axis=0) * (len(part) / len(action)) for part in parts)
            document["action"][name] = np.asarray(total).tolist()

    change_json(root / "meta/stats.json", average)


@damaged("statistics_missing", report="huggingface/lerobot#2189")
def quantiles_are_missing(root: Path, rng: Rng) -> None:
    change_json(root / "meta/stats.json", lambda d: [d["action"].pop(name) for name in ("q01", "q99")])


@damaged("episode_statistics", kinds=("leader_follower",))
def statistics_of_an_episode_are_another_ones(root: Path, rng: Rng) -> None:
    def exchange(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[1]["stats/action/max"] = rows[4]["stats/action/max"]
        return rows

    change_entries(root, exchange)


@damaged("card_differs", kinds=("delta_arm", "with_outcome"))
def the_card_is_of_another_version(root: Path, rng: Rng) -> None:
    (root / "README.md").write_text((root / "README.md").read_text() + '\n```json\n{"total_episodes": 40, "fps": 10}\n```\n')


@damaged("licence_limited", kinds=("delta_arm",))
def the_licence_forbids_commerce(root: Path, rng: Rng) -> None:
    (root / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")


@damaged("robot_unknown", kinds=("delta_arm", "bimanual"))
def the_robot_is_not_named(root: Path, rng: Rng) -> None:
    change_json(root / "meta/info.json", lambda d: d.update(robot_type="unknown"))


@damaged("film_notes", report="superseriousbusiness/gotosocial#2577")
def films_note_where_they_were_taken(root: Path, rng: Rng) -> None:
    copy_film(films(root)[0], lambda notes: notes | {"location": "+48.1000+011.5000/", "artist": "Erika Mustermann"})
