"""Time of the inspection against two public tools, on one made-up set: structural rules, and everything with pictures.

Structural: `lerobot-doctor` (its checks of the whole set) against our rules without pictures. With pictures: `robot-data-audit --full`
against all of our rules with every picture decoded once. Both sides run as processes of their own, in alternating order; the median
counts, with a bootstrap interval of the ratio. What each side reports of the sound set is written beside it.

Run: python benchmarks/inspection.py --environment VENV [--episodes 200] [--frames 100] [--size 96] [--repeats 7]
VENV has `pip install lerobot-doctor==0.2.0 "robot-data-audit[parquet]" opencv-python-headless`; the result is
benchmarks/results/inspection_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "inspection_speed.json"
OURS = (
    "import sys; from pathlib import Path; from components.config.records import Silent; "
    "from components.config.data_config import ValidateConfig; "
    "from components.data.inspection.reporting.inspect import measure; "
    "from components.data.inspection.reporting.report import inspect_measurements; "
    "m = measure(Path(sys.argv[1]), None, Silent(), pixels=sys.argv[2] == 'pixels'); r = inspect_measurements(m, ValidateConfig()); "
    "print(len(r.of('defect')), len(r.of('risk')), len(r.of('unknown')), len(r.of('sound')), sum(r.cameras.values()))"
)


def made_folder(root: Path, episodes: int, frames: int, size: int) -> Path:
    """A sound set with two cameras in 4:2:0, of as many episodes."""
    from tests.data_faults.clean_sets import f32, gripper, pictures, smooth_path
    from tests.data_faults.made_set import MadeEpisode, MadeSet, write_made_set

    rng = np.random.default_rng(3)
    made: list[MadeEpisode] = []
    for number in range(episodes):
        path, grip = smooth_path(rng, frames + 2, 5, number % 2), gripper(rng, frames + 2)
        joints = np.concatenate([path * 90, grip[:, None] * 60], axis=1)
        shown = {name: pictures(path[:-2], k, size=size) for k, name in enumerate(("top", "side"))}
        state, action = (joints[part] + rng.normal(0, 0.05, (frames, 6)) for part in (slice(None, -2), slice(2, None)))
        made.append(MadeEpisode(state_TP=f32(state), action_TA=f32(action), frames=shown, task=("lift the cup", "pour")[number % 2]))
    names = tuple(f"joint_{n}.pos" for n in range(6))
    found = MadeSet(episodes=tuple(made), fps=30, robot="so101_follower", state_names=names, action_names=names, lossy=True, per_file=50)
    return write_made_set(root, found)


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of one process, and the end of what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    return time.perf_counter() - began, (done.stdout + done.stderr).strip()[-300:]


def compared(ours: list[str], theirs: list[str], folder: Path, repeats: int) -> dict[str, Any]:
    """Both commands, alternating: medians, and the ratio (theirs over ours) with its interval."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    said: dict[str, str] = {}
    for number in range(repeats + 1):
        for name, command in (("ours", ours), ("theirs", theirs)) if number % 2 else (("theirs", theirs), ("ours", ours)):
            seconds, said[name] = timed(command, folder)
            if number:  # the first round warms files and byte code
                times[name].append(seconds)
    rng = np.random.default_rng(0)
    draws = [np.median(rng.choice(times["theirs"], repeats)) / np.median(rng.choice(times["ours"], repeats)) for _ in range(2000)]
    ratio = statistics.median(times["theirs"]) / statistics.median(times["ours"])
    interval = [round(float(value), 3) for value in np.quantile(draws, (0.025, 0.975))]
    return {"seconds": times, "ratio": round(ratio, 3), "interval_95": interval, "said": said}


def main() -> None:
    """Both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True, help="a virtual environment with both tools")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    tools = args.environment / "bin"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        root = made_folder(work / "set", args.episodes, args.frames, args.size)
        doctor = [str(tools / "lerobot-doctor"), "check", str(root), "--json"]
        audit = [str(tools / "rda"), "audit", str(root), "--full", "--format", "json", "--output", str(work / "audit.json")]
        ours = [sys.executable, "-c", OURS, str(root)]
        result = {
            "set": {"episodes": args.episodes, "frames": args.episodes * args.frames, "cameras": 2, "size": args.size},
            "structural_against_lerobot_doctor": compared([*ours, "rows"], doctor, work, args.repeats),
            "pictures_against_robot_data_audit": compared([*ours, "pixels"], audit, work, args.repeats),
        }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("structural_against_lerobot_doctor", "pictures_against_robot_data_audit"):
        sys.stdout.write(f"{name}: {result[name]['ratio']} {result[name]['interval_95']}\n")


if __name__ == "__main__":
    main()
