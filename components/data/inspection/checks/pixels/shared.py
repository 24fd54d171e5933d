"""What rules of pictures share."""

from __future__ import annotations

import numpy as np

from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements

NO_PICTURE = "no picture was decoded"
FEW_EPISODES = "there are less than three episodes to compare with"
REMOVE = "remove the episode, and look at the camera and its cable"


def with_pictures(m: SetMeasurements, camera: str) -> list[EpisodeMeasurements]:
    """The episodes of which pictures of this camera were looked at."""
    return [e for e in m.episodes if camera in e.cameras and len(e.cameras[camera])]


def median_of(values: list[float]) -> float:
    """The median; 0 of nothing."""
    return float(np.median(values)) if values else 0.0
