#!/usr/bin/env bash
# robot-data-audit 0.11.0: an arm that moves at every step is "idle" where its actions are steps (deltas), as in LIBERO, Bridge and OXE sets.
#
# Expected: the same motion is as idle when its actions are written as steps as when they are written as targets.
# Seen:     idle_ratio looks at how much the action changes from row to row. Targets that move along change; equal steps do not. An arm
#           that goes on at one speed and closes its gripper once is active in every frame with targets, and in a third of them with steps.
# Matters:  "effective motion" and the lists of frames to prune are made of it: pruning such frames removes the motion itself.
# Remedy:   take motion from the state, or from the action itself where it is a step.
#
# Output seen (least share of active frames of three episodes):
#   actions as targets: 1.000
#   actions as steps:   0.322
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

cat > "$FOLDER/write.py" <<'PY'
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

root, form, fps, length = Path(sys.argv[1]), sys.argv[2], 20, 60
for folder in ("meta", "data/chunk-000"):
    (root / folder).mkdir(parents=True)
whole = {"dtype": "int64", "shape": [1], "names": None}
number = {"dtype": "float32", "shape": [3], "names": ["x", "y", "gripper"]}
features = {"observation.state": number, "action": number, "timestamp": {**whole, "dtype": "float32"}}
features |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), whole)
info = {"codebase_version": "v2.1", "robot_type": "arm", "fps": fps, "features": features, "chunks_size": 1000, "total_chunks": 1}
info |= {"total_episodes": 3, "total_frames": 3 * length, "total_tasks": 1, "total_videos": 0, "splits": {"train": "0:3"}}
info |= {"data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", "video_path": None}
(root / "meta/info.json").write_text(json.dumps(info))
(root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "reach"}) + "\n")
rng = np.random.default_rng(0)
with (root / "meta/episodes.jsonl").open("w") as episodes:
    for episode in range(3):
        episodes.write(json.dumps({"episode_index": episode, "tasks": ["reach"], "length": length}) + "\n")
        steps = np.arange(length)
        move = np.array([0.1, 0.05]) * rng.uniform(0.95, 1.05, (length, 2))  # at every step, with little noise
        place = np.cumsum(move, axis=0) - move
        grip = np.where(steps < 45, -1.0, 1.0)[:, None]
        told = np.concatenate([move if form == "steps" else place + move, grip], axis=1).astype(np.float32)
        state = np.concatenate([place, grip], axis=1).astype(np.float32)
        table = {"observation.state": list(state), "action": list(told), "timestamp": (steps / fps).astype(np.float32), "frame_index": steps}
        table |= {"episode_index": np.full(length, episode), "index": steps + episode * length, "task_index": np.zeros(length, np.int64)}
        pq.write_table(pa.table(table), root / f"data/chunk-000/episode_{episode:06d}.parquet")
PY

"$PYTHON" -m venv "$FOLDER/env"
"$FOLDER/env/bin/pip" install --quiet --disable-pip-version-check robot-data-audit==0.11.0 pyarrow pandas 2>"$FOLDER/pip.log" \
  || { cat "$FOLDER/pip.log" >&2; exit 2; }
for form in targets steps; do
  "$FOLDER/env/bin/python" "$FOLDER/write.py" "$FOLDER/$form" "$form" || exit 2
  "$FOLDER/env/bin/rda" audit "$FOLDER/$form" --no-video --output "$FOLDER/$form.json" >"$FOLDER/log" 2>&1 || { cat "$FOLDER/log" >&2; exit 2; }
done
"$FOLDER/env/bin/python" - "$FOLDER" <<'PY' || changed "see the shares above"
import json
import sys

share = {}
for form in ("targets", "steps"):
    found = [one["metrics"]["idle_ratio"]["details"] for one in json.load(open(f"{sys.argv[1]}/{form}.json"))["episodes"]]
    share[form] = min(1 - one["idle_ratio"] for one in found)
    print(f"actions as {form + ':':8} {share[form]:.3f}")
sys.exit(not (share["targets"] > 0.9 and share["steps"] < 0.5))
PY
