#!/usr/bin/env bash
# Meta-World 3.1.1: "near_object" of a step's information is not a stage of the task in 20 of its 50 tasks.
#
# Expected: env.step(...)[4]["near_object"] is 0 before the hand has come to the object and 1 from then on, in each task alike, so that it can
#           be the first stage of a score (came to the object, grasped it, solved the task).
# Seen:     with the package's own experts, which solve every episode here:
#           coffee-button-v3   0 from the first step to the success: the hand presses the button and was "never near" it
#           door-lock-v3       1 from the first step on, with the hand 20 cm away
#           reach-v3           a distance-like number between 0 and 1 that says nothing of an object (there is none)
#           button-press-topdown-v3   0, then 1, as expected
# Matters:  a stage score that is averaged over tasks gives solved episodes of some tasks no first stage, and unsolved ones of others a free one;
#           two policies compared by it differ for no reason of theirs.
# Remedy:   use it only in tasks where it goes from 0 to 1 (30 of 50; try it with the experts), or score by the success alone.
#
# Output seen (first value, greatest value, was the episode solved):
#   coffee-button-v3         first 0.000  greatest 0.000  solved True
#   door-lock-v3             first 1.000  greatest 1.000  solved True
#   reach-v3                 first 0.2..  greatest 0.2..  solved True
#   button-press-topdown-v3  first 0.000  greatest 1.000  solved True
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'metaworld==3.1.1' 'mujoco==3.3.0' 'gymnasium==1.4.0' 'numpy==2.4.6' \
  'packaging==26.3' 2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; exit 2; }
cd "$FOLDER"

cat > near.py <<'PY'
import sys

import metaworld
from metaworld.policies import ENV_POLICY_MAP

SEEN = {}
for name in ("coffee-button-v3", "door-lock-v3", "reach-v3", "button-press-topdown-v3"):
    benchmark = metaworld.MT1(name, seed=1)
    env = benchmark.train_classes[name]()
    env.set_task(benchmark.train_tasks[0])
    observation, _ = env.reset()
    expert, near, solved = ENV_POLICY_MAP[name](), [], False
    while not solved and len(near) < 400:
        observation, _, _, _, info = env.step(expert.get_action(observation).clip(-1, 1))
        near.append(float(info["near_object"]))
        solved = bool(info["success"])
    SEEN[name] = (near[0], max(near), solved)
    print(f"{name:24} first {near[0]:.3f}  greatest {max(near):.3f}  solved {solved}")


def check(name, first, greatest):
    if SEEN[name][:2] != (first, greatest) or not SEEN[name][2]:
        sys.exit(f"behaviour changed: near_object of {name}")


check("coffee-button-v3", 0.0, 0.0)
check("door-lock-v3", 1.0, 1.0)
check("button-press-topdown-v3", 0.0, 1.0)
first, greatest, solved = SEEN["reach-v3"]
if not (solved and 0 < first <= greatest < 1):
    sys.exit("behaviour changed: near_object of reach-v3")
PY
"$FOLDER/venv/bin/python" -W ignore near.py 2>errors.log || { cat errors.log >&2; exit 1; }
echo "as described"
