"""200,000 stub frames labelled on two Ray nodes in two network namespaces, with bad frames, a killed node and a killed driver.

Run: python -m tests.scale.ray_labelling [--frames 200000]     writes benchmarks/results/ray_labelling.json

Every id must be there once, every bad frame with its reason, and memory flat. Needs root, iproute2 and the extra `ray`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.measuring import conditions, written
from tests.ray_numbers import labelled_through_kills, reason_of
from tests.scale.gate_outcomes import ROOT

RESULT = ROOT / "benchmarks" / "results" / "ray_labelling.json"
MOST_GROWTH = 1.25  # of the head's memory, from a quarter of the frames to nine tenths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000)
    frames = parser.parse_args().frames
    started, load = time.perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        found = labelled_through_kills(Path(folder), frames, seconds=0.0002)
    bad = sum(bool(reason_of(number)) for number in range(frames))
    memory = [mib for _, mib in found["memory_mib_at_rows"]]
    sound = (found["labels"], found["reasons"], found["wrong"]) == (frames - bad, bad, 0) and memory[-1] <= MOST_GROWTH * memory[0]
    result = {"run": "python -m tests.scale.ray_labelling", **found, "is_sound": sound}
    written({**result, "conditions": conditions(load, started, ray=version("ray"))}, RESULT)
    sys.stdout.write(json.dumps(result) + "\n")
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
