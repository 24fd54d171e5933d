"""What the published code wrote, read, drew and computed: the files of tests/golden/road."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROAD = Path(__file__).parent / "golden" / "road"


@cache
def document(name: str) -> Any:
    """A JSON file; `{"$float": "inf"}` becomes the number."""
    return json.loads((ROAD / name).read_text(encoding="utf-8"), object_hook=lambda d: float(d["$float"]) if set(d) == {"$float"} else d)


def arrays(name: str) -> dict[str, NDArray[Any]]:
    """An .npz file."""
    with np.load(ROAD / name, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
