"""Two cameras changed places after a restart: each one's pictures are stored under the other's name from some episode on.

The computer of the cell was restarted between two sessions, the USB cameras came up in another order, and the recorder opens them by
number. Each name still has a film of the right length. Reported like this: makermods-robotics/makermodslab#41,
open-edge-platform/physical-ai-studio#497.
A good tool says: from this episode on, these two cameras show what the other one showed before.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from tests.data_faults.edits_for_blind_faults import Pictures, SetFolder
from tests.data_faults.interface import NotApplicable


def inject(folder: Path, seed: int) -> str:
    """Exchange two cameras from a later episode on, with their depth where both have some."""
    data, rng = SetFolder(folder), np.random.default_rng(seed)
    if len(data.cameras) < 2:
        raise NotApplicable("a set with one camera has no other to exchange it with")
    later = data.second_session(rng)
    data.check_pictures()
    pairs = list(combinations(data.cameras, 2))
    depths = {camera: data.depth(camera) for camera in data.cameras}
    alike = [pair for pair in pairs if bool(depths[pair[0]]) == bool(depths[pair[1]])] or pairs
    one, other = alike[int(rng.integers(len(alike)))]
    pictures = {camera: data.pictures(camera, later) for camera in (one, other)}
    data.put_pictures(
        {
            camera: {n: _resized(shown, pictures[camera][n]) for n, shown in pictures[source].items()}
            for camera, source in ((one, other), (other, one))
        }
    )
    numbers = [episode.number for episode in later]
    if all(n in depths[one] and n in depths[other] and len(depths[one][n][0]) == len(depths[other][n][0]) for n in numbers):
        data.put_depth(one, {n: depths[other][n] for n in numbers})
        data.put_depth(other, {n: depths[one][n] for n in numbers})
    return f"the cameras {one!r} and {other!r} are exchanged from episode {later[0].number} on"


def _resized(shown: Pictures, before: Pictures) -> Pictures:
    """The pictures in the size that the recorder asks of this camera."""
    (height, width), (high, wide) = shown.shape[1:3], before.shape[1:3]
    rows, columns = np.arange(high) * height // high, np.arange(wide) * width // wide
    return shown[:, rows][:, :, columns]
