"""Time of the inspection against two public tools, on one made-up set: structural rules, and everything with pictures.

Structural: `lerobot-doctor check` (all of its checks) against `actwright data inspect --no-images` (all of our rules, of which those of
images say that they have no evidence), on episodes of 10 s and of 3.3 s. With pictures: `robot-data-audit --full` against `actwright
data inspect`, every picture decoded once and nothing kept from an earlier run. Both are commands, in alternating order; the median counts,
with a bootstrap interval of the ratio, of wall and of processor time. The end of what each side says of the sound set stands beside it.

Run: python benchmarks/inspection.py --environment VENV [--full]     writes benchmarks/results/inspection_speed.json
Without --full: 200 episodes for the structural rules and 30 with pictures. VENV has
`pip install lerobot-doctor==0.2.0 "robot-data-audit[parquet]==0.11.0" opencv-python-headless`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, medians, ratio, timed, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "inspection_speed.json"
EPISODES, SMALL, FULL = 200, (30, 3), (200, 5)  # SMALL, FULL: episodes with pictures, repeats
LONG, SHORT, PIXELS = 300, 100, 96  # frames of an episode at 30 a second; side of an image
STRUCTURAL, PICTURES = 3.0, 1.5  # goals


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


def compared(sides: dict[str, list[str]], folder: Path, repeats: int) -> dict[str, Any]:
    """Both commands, alternating; a first round warms files and byte code. Ratios: theirs over ours, of wall and of processor time."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    said: dict[str, str] = {}
    done = (0, 1, 2)  # 1 and 2 tell findings: `robot-data-audit` would exclude episodes of this set
    for number in range(repeats + 1):
        for name in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            # what pip installed has its byte code; ours, in a clone, is written by the first round
            own = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "ACTWRIGHT_HOME": str(folder / "home")}
            run = timed(sides[name], folder=folder, sound=done, HF_HUB_OFFLINE="1", **own)
            said[name] = run["printed"][-400:] or run["warned"]
            if number:
                runs[name].append(run)
        shutil.rmtree(folder / "home", ignore_errors=True)  # what ours keeps of an inspection is not to help the next
    return {
        "seconds": medians(runs, ("wall_s", "cpu_s")),
        "ratio": ratio(runs["theirs"], runs["ours"], "wall_s"),
        "ratio_of_processor_time": ratio(runs["theirs"], runs["ours"], "cpu_s"),
        "said": said,
    }


def main() -> None:
    """Both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True, help="a virtual environment with both tools")
    parser.add_argument(
        "--full", action="store_true", help=f"with pictures {FULL[0]} episodes {FULL[1]} times, not {SMALL[0]} {SMALL[1]} times"
    )
    parser.add_argument("--episodes", type=int, default=EPISODES, help="of the structural comparison")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()
    episodes, repeats = FULL if args.full else SMALL
    tools, ours = args.environment / "bin", [str(Path(sys.executable).parent / "actwright"), "data", "inspect"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shown = made_folder(work / "pictures", episodes, SHORT, PIXELS)
        found = {}
        for name, frames in (("structural_against_lerobot_doctor", LONG), ("structural_of_short_episodes", SHORT)):
            rows = made_folder(work / f"rows-{frames}", args.episodes, frames, 32)  # neither side decodes more than a picture of a film
            doctor = {"ours": [*ours, str(rows), "--no-images"], "theirs": [str(tools / "lerobot-doctor"), "check", str(rows), "--json"]}
            found[name] = {"frames": args.episodes * frames, **compared(doctor, work, max(repeats, 5))}
        full = [str(tools / "rda"), "audit", str(shown), "--full", "--format", "json", "--output", str(work / "audit.json")]
        audit = {"ours": [*ours, str(shown)], "theirs": full}
        found["pictures_against_robot_data_audit"] = {"frames": episodes * SHORT, **compared(audit, work, repeats)}
    goals = {"structural_against_lerobot_doctor": STRUCTURAL, "pictures_against_robot_data_audit": PICTURES}
    result = {
        "what": "one inspection as a command; ratio is the peer's time to ours, of medians of alternating runs",
        "set": {"episodes": args.episodes, "episodes_with_pictures": episodes, "cameras": 2, "size_with_pictures": PIXELS},
        **found,
        "goal": goals,
        "is_goal_reached": {name: found[name]["ratio"]["ratio"] >= goal for name, goal in goals.items()},
        "conditions": conditions(load, started, **{"lerobot-doctor": "0.2.0", "robot-data-audit": "0.11.0"}),
    }
    written(result, args.out)


if __name__ == "__main__":
    main()
