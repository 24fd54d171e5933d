"""Inspect any LeRobot folder of any writer: open it, measure what was not measured before, and apply every rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.config.data_config import ValidateConfig
from components.data.inspection.folder.view import open_folder
from components.data.inspection.measurements.dataset import measure_folder
from components.data.inspection.measurements.record import SetMeasurements
from components.data.inspection.measurements.store import MeasurementStore
from components.data.inspection.reporting.report import InspectionReport, inspect_measurements
from model_core.spec.contract import EmbodimentSpec

if TYPE_CHECKING:
    from components.config.records import Progress


def measure(
    folder: Path, store: Path | None, progress: Progress | None, *, embodiment: EmbodimentSpec | None = None, pixels: bool = True
) -> SetMeasurements:
    """What is measured of a folder; what `store` holds is not measured again. Raises `DatasetError` where there is no data set.

    progress: None shows nothing. Without `pixels` no image is decoded, and nothing is kept: rows are measured sooner than what was kept of
    them is found.
    """
    kept = store if pixels else None
    view = open_folder(folder, embodiment=embodiment, digests=kept is not None)
    return measure_folder(view, MeasurementStore(kept), progress, pixels=pixels)


def inspect_folder(
    folder: Path,
    store: Path | None,
    progress: Progress | None,
    *,
    cfg: ValidateConfig | None = None,
    embodiment: EmbodimentSpec | None = None,
    pixels: bool = True,
) -> InspectionReport:
    """`measure`, and every rule with the thresholds of `cfg`; without `pixels` those of images say that they have no evidence."""
    return inspect_measurements(measure(folder, store, progress, embodiment=embodiment, pixels=pixels), cfg or ValidateConfig())
