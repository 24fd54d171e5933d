"""Files, documents and counts are there and agree."""

from __future__ import annotations

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import DEFECT, RISK, Verdict, check, of_facts
from components.data.inspection.measurements.record import SetMeasurements

_REPAIR = "repair a copy, or record the episodes again"
_AGAIN = "export the data set again from its recordings, or fetch it again"


@check(
    "version",
    severity=DEFECT,
    reason="a reader of another version takes the files for something else",
    fix="state the version whose layout the files have, or convert a copy",
    source="Physical-Intelligence/openpi#706",
)
def version(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The stated version is known, and the files are laid out as it says."""
    return of_facts(m, "version", "documents")


@check(
    "info_field",
    severity=DEFECT,
    reason="without rate, counts and features no row can be read for what it is",
    fix="correct meta/info.json",
    source="huggingface/lerobot, lerobot/datasets/utils.py (fields of info.json)",
)
def info_field(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Rate, counts and features of meta/info.json have values that can be."""
    return of_facts(m, "info_field", "fields")


@check("file_missing", severity=DEFECT, reason="its episodes have no rows or no pictures", fix=_AGAIN, source="huggingface/lerobot#2264")
def file_missing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every file that an episode names is there."""
    return of_facts(m, "file_missing", "files")


@check(
    "unreadable",
    severity=DEFECT,
    reason="a recorder that is killed leaves tables without a footer and documents cut short",
    fix=_REPAIR,
    source="huggingface/lerobot#2495",
)
def unreadable(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every table and document can be read to its end."""
    return of_facts(m, "file_unreadable", "files")


@check(
    "video_unreadable",
    severity=DEFECT,
    reason="a film that is cut short loses the pictures of every later episode in it",
    fix=_REPAIR,
    source="CMU-Robotics-Club/RoboBuggy#339",
)
def video_unreadable(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every film can be opened and read to its end."""
    return of_facts(m, "video_unreadable", "films")


@check(
    "file_unnamed",
    severity=RISK,
    reason="readers that take every file of a folder count its rows too, and every later row is another one there",
    fix="remove the file, or list its episodes in meta/episodes",
    source="almond-bot/axol#193",
)
def file_unnamed(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every data and video file is named by an episode."""
    return of_facts(m, "file_unnamed", "files")


@check(
    "counts",
    severity=DEFECT,
    reason="a set that counts itself wrongly has lost or doubled episodes",
    fix=_AGAIN,
    source="strands-labs/robots#708",
)
def counts(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Info, episode list and data files count the same episodes, frames and tasks."""
    return of_facts(m, "counts", "counts")


@check(
    "episode_list",
    severity=DEFECT,
    reason="an episode that is listed twice or not at all cannot be found",
    fix=_REPAIR,
    source="almond-bot/axol#158",
)
def episode_list(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every row of the episode list names one episode, once, with its files."""
    return of_facts(m, "episode_list", "episodes")


@check(
    "episode_gap",
    severity=RISK,
    reason="readers that count episodes by their place take a neighbour's rows after a gap",
    fix="number the episodes again with a tool that rewrites all files",
    source="almond-bot/axol#158",
)
def episode_gap(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Episodes are numbered 0, 1, 2 and so on."""
    return of_facts(m, "episode_gap", "lists")
