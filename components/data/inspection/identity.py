"""When two episodes are the same recording, whatever they are called."""

from __future__ import annotations

import hashlib

import numpy as np

from model_core.spec.episode import Episode


def episode_identity(episode: Episode) -> str:
    """SHA-256 over images, proprioception, labelled actions and executed actions; two equal ones are one recording, counted once.

    Ids, times and provenance stay out: a copy has others. Labelled and executed actions both count: one demonstration that is
    executed with two different perturbations gives two episodes, and so does one motion under two labels.
    """
    total = hashlib.sha256()
    arrays = {f"image {name}": frames for name, frames in episode.images.items()}
    arrays |= {"proprio": episode.proprio_TP, "action": episode.actions_TA, "executed": episode.executed_TA}
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape}\0".encode())
        total.update(array.tobytes())
    return total.hexdigest()
