"""Films beside their rows: as many pictures, at the same rate, from a whole frame on, each its own, all decoded."""

from __future__ import annotations

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import (
    DEFECT,
    Fault,
    Verdict,
    check,
    of_facts,
    of_pictures,
)
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements

_EXPORT = "export the data set again from its recordings"
_ALONE = "no episode is stated to be a part of a longer film"


@check(
    "video_frames",
    severity=DEFECT,
    reason="a picture that was lost or written twice shifts every later one of its film",
    fix=_EXPORT,
    source="huggingface/lerobot#4109",
)
def video_frames(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """A film has as many pictures as its episodes have rows."""
    return of_facts(m, "video_frames", "films")


@check(
    "video_rate",
    severity=DEFECT,
    reason="pictures are found by their time, so another rate shows others",
    fix=_EXPORT,
    source="Hebbian-Robotics/hflow#461",
)
def video_rate(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """A film runs at the rate of the set."""
    return of_facts(m, "video_rate", "films")


@check(
    "video_start",
    severity=DEFECT,
    reason="starts that were added up drift into the neighbour's frames",
    fix=_EXPORT,
    source="huggingface/lerobot#3177",
)
def video_start(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """An episode begins at a whole frame of its film, and takes as many as it has rows."""
    return of_facts(m, "video_start", "episodes", _ALONE)


@check("video_overlap", severity=DEFECT, reason="two episodes are shown the same pictures", fix=_EXPORT, source="huggingface/lerobot#2447")
def video_overlap(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No two episodes take the same pictures of a film."""
    return of_facts(m, "video_overlap", "episodes", _ALONE)


@check(
    "video_decodes",
    severity=DEFECT,
    reason="a picture that cannot be decoded stops a training, or is skipped without a word",
    fix="record the episode again, or repair a copy",
    source="huggingface/lerobot#4066",
)
def video_decodes(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every picture of every episode can be decoded."""

    def judge(e: EpisodeMeasurements, camera: str) -> str | None:
        return e.cameras[camera].error

    found = of_pictures(m, judge, "no picture was decoded")
    empty = [
        Fault(where=e.episode_id, reason=f"camera {name}: {camera.error}")
        for e in m.episodes
        for name, camera in e.cameras.items()
        if not len(camera)
    ]
    return Verdict(faults=(*found.faults, *empty), looked_at=found.looked_at, of=found.of, unit="frames", missing=found.missing)
