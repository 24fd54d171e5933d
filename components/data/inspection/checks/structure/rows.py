"""Rows, columns and cameras are what the features state."""

from __future__ import annotations

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check, of_episodes, of_facts
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements

_AGAIN = "export the data set again from its recordings, or fetch it again"


@check(
    "row_order",
    severity=DEFECT,
    reason="rows of another episode join actions with pictures that they do not belong to",
    fix=_AGAIN,
    source="huggingface/lerobot#4143",
)
def row_order(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The rows of an episode say that they are its frames 0, 1, 2 and so on, where meta/ says that they are."""
    return of_facts(m, "row_order", "episodes")


@check("index", severity=DEFECT, reason="files are missing or in the wrong order", fix=_AGAIN, source="huggingface/lerobot#4401")
def index(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The column index counts 0, 1, 2 and so on over all files."""
    return of_facts(m, "index", "columns")


@check(
    "column_missing",
    severity=DEFECT,
    reason="a feature that is promised and not there fails in the middle of a training",
    fix="write the column, or take the feature out of meta/info.json",
    source="huggingface/lerobot#3039",
)
def column_missing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every feature has its column, in every file."""
    return of_facts(m, "column_missing", "columns")


@check(
    "column_unknown",
    severity=RISK,
    reason="a column that no feature describes is passed over by readers",
    fix="describe it in meta/info.json, or remove it",
    source="huggingface/lerobot, lerobot/datasets/utils.py (get_hf_features_from_features)",
)
def column_unknown(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every column is a feature."""
    return of_facts(m, "column_unknown", "columns")


@check(
    "column_width",
    severity=DEFECT,
    reason="numbers of another body, or names that stand for other places",
    fix="correct the shape and the names of the feature",
    source="OpenGalaxea/GalaxeaVLA#32",
)
def column_width(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """A vector has as many numbers, and as many names, as its feature states."""
    return of_facts(m, "column_width", "columns")


@check(
    "column_dtype",
    severity=RISK,
    reason="whole numbers in place of fractions lose what is behind the point",
    fix="write the column in the kind that the feature states",
    source="huggingface/lerobot#552",
)
def column_dtype(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """A column holds the kind of number that its feature states."""
    return of_facts(m, "column_dtype", "columns")


@check(
    "values_missing",
    severity=DEFECT,
    reason="an empty value becomes zero or stops a training",
    fix=_AGAIN,
    source="fivetran/great_expectations#412",
)
def values_missing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every row has a value in every column of numbers, of one width."""
    return of_facts(m, "values_missing", "columns")


@check("task_table", severity=DEFECT, reason="without it no frame has an instruction", fix=_AGAIN, source="huggingface/lerobot#2467")
def task_table(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The task table can be read, and gives one sentence to one index."""
    return of_facts(m, "task_table", "tables")


@check(
    "camera_missing",
    severity=DEFECT,
    reason="a policy is shown nothing where it is promised a view",
    fix="record the camera, or take it out of the set",
    source="huggingface/lerobot#1620",
)
def camera_missing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every episode names a film of every camera."""
    return of_facts(m, "camera_missing", "episodes")


@check(
    "no_camera",
    severity=RISK,
    reason="a policy that sees nothing cannot be trained on it",
    fix="record or export the set with its images",
    source="huggingface/lerobot#895",
)
def no_camera(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The set has a camera."""
    verdict = Verdict(looked_at=1, of=1, unit="sets")
    return verdict if m.cameras else Verdict(faults=_set_fault("the set has no camera"), looked_at=1, of=1, unit="sets")


@check(
    "camera_shape",
    severity=DEFECT,
    reason="pictures of another size or turned by a quarter are resized without a word",
    fix="correct the feature's shape, or export the films again",
    source="huggingface/lerobot#839",
)
def camera_shape(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Pictures are as high and wide as the feature states, and every episode's are alike."""
    stated = of_facts(m, "camera_shape", "films")
    sizes: dict[str, set[tuple[int, int]]] = {}
    for episode in m.episodes:
        for name, camera in episode.cameras.items():
            if len(camera):
                sizes.setdefault(name, set()).add((camera.height, camera.width))
    mixed = [f"its pictures have {len(found)} sizes: {sorted(found)}" for found in sizes.values() if len(found) > 1]
    return Verdict(
        faults=(*stated.faults, *(_set_fault(reason)[0] for reason in mixed)), looked_at=stated.looked_at, of=stated.of, unit="films"
    )


@check(
    "too_short",
    severity=DEFECT,
    reason="rates are differences of frames",
    fix="remove the episode",
    source="google-deepmind/open_x_embodiment#45",
)
def too_short(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """An episode has two frames at least."""
    return of_facts(m, "too_short", "episodes")


@check(
    "episode_length",
    severity=DEFECT,
    reason="a false start, or a recording that somebody forgot to stop",
    fix="remove or trim the episode, or set validate.min_frames and validate.max_frames for this robot",
    source="huggingface/lerobot#2936",
)
def episode_length(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """An episode has `min_frames` to `max_frames` frames."""

    def judge(e: EpisodeMeasurements) -> str:
        return "" if cfg.min_frames <= e.frames <= cfg.max_frames else f"expected {cfg.min_frames}..{cfg.max_frames} frames, got {e.frames}"

    return of_episodes(m, judge, "")


def _set_fault(reason: str) -> tuple[Fault, ...]:
    return (Fault(where=SET, reason=reason),)
