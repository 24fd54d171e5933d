"""Whether recordings that a run is to include can join it and be labelled, told before anything is recorded or trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.config.data_config import AnnotateConfig
from components.data.accounting.tally import LABELLING_ADVICE, Tally
from components.data.annotators.interface import frames_of
from components.data.annotators.simulator_truth import open_depth, open_points
from components.data.lerobot.reader import DatasetReader, EpisodeIndexRow
from model_core.spec.errors import DatasetError, GateError


def check_included(datasets: Mapping[str, Path], tasks: Sequence[str], cfg: AnnotateConfig) -> None:
    """Raise `GateError` for an included data set of which no episode is of `tasks`, or of which too many cannot be labelled.

    datasets: the name that the recipe includes a set by -> its folder.
    """
    for name, folder in datasets.items():
        reader = DatasetReader(folder)
        # a task that is called as its sentence has no name of its own, and may be of the recipe's
        joining = [row for row in reader.rows if row.task in tasks or row.task == row.instruction]
        if not joining:
            there = ", ".join(sorted({row.task for row in reader.rows}))
            raise GateError(
                f"include {name}: none of its {len(reader)} episodes would join: expected tasks {', '.join(tasks)} (collect.tasks), "
                f"got {there}. Fix: leave it out of `include`, or add its tasks to collect.tasks"
            )
        tally = labelled(reader, joining, cfg)
        tally.check(cfg.max_rejected_fraction, setting="annotate.max_rejected_fraction", advice=LABELLING_ADVICE)
        reader.close()


def labelling_notes(folder: Path, cfg: AnnotateConfig) -> list[str]:
    """What a person should know of a data set before it joins a run: which of its episodes cannot be labelled as the recipe says."""
    reader = DatasetReader(folder)
    found = []
    for row in labelled(reader, reader.rows, cfg).rows():
        for lost in row["dropped"]:
            total = sum(one.provenance.producer == row["source"] for one in reader.rows)
            found.append(
                f"{lost['episodes']} of {total} episodes of {row['source']} cannot be labelled by this recipe's annotators and would not "
                f"be trained on: {lost['reason']}. Fix: {LABELLING_ADVICE}"
            )
    reader.close()
    return found


def labelled(reader: DatasetReader, rows: Sequence[EpisodeIndexRow], cfg: AnnotateConfig) -> Tally:
    """Which of these episodes hold what the annotators read from a recording; networks are taken to answer for all of them."""
    tally, annotators = Tally("annotate"), []
    annotators += [open_depth(cfg)] if cfg.depth_annotator == "truth" else []
    annotators += [open_points(cfg)] if cfg.point_annotator == "truth" else []
    for row in rows if annotators else ():
        source = row.provenance.producer
        try:
            episode = reader.episode(row.index, images=False)
            geometry = episode.geometry.get(reader.cameras[0])
            size = (geometry.height, geometry.width) if geometry is not None else (0, 0)
            for annotator in annotators:
                annotator.annotate(frames_of(episode, reader.cameras[0], size))
        except DatasetError as error:
            tally.drop(source, str(error), row.length)
        else:
            tally.keep(source, row.length)
    return tally
