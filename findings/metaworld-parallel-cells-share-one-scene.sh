#!/usr/bin/env bash
# Meta-World 3.1.1 with gymnasium 1.4.0: parallel cells of one task, made with a seed, all show the same scene.
#
# Expected: gymnasium.make_vec("Meta-World/MT1", env_name="push-v3", num_envs=4, seed=7) gives four different scenes, reproducibly, and
#           reset(seed=...) chooses them, as for other environments.
# Seen:     (a) the seed goes to each cell unchanged: every cell draws the same list of scenes in the same order, so after each reset all
#           four begin from one scene, also when reset is given four different seeds. Without a seed there are four scenes, but
#           nobody can repeat them.
#           (b) reset(seed=1) twice gives two different scenes: the scene is the next of the list, whatever the seed of the reset.
# Matters:  40 evaluation episodes in 4 cells are 10 scenes, each counted four times: a deterministic policy gives four equal results,
#           and a confidence interval over 40 is about half as wide as it should be. "Same seed" across two policies pairs
#           different scenes as soon as one of them was reset once more than the other.
# Remedy:   choose the scene yourself (set_task with a task of a seeded benchmark, or a seed of its own for each cell), and
#           count distinct scenes, not episodes.
#
# Output seen (scene = first position of the object and the goal):
#   seed=7:    of 4 cells, distinct scenes after reset(seed=[1, 2, 3, 4]), reset(seed=[5, 6, 7, 8]), reset(): [1, 1, 1]
#   no seed:   of 4 cells, distinct scenes after the same resets: [4, 4, 4]
#   reset(seed=1) twice gives the same scene: False
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'metaworld==3.1.1' 'mujoco==3.3.0' 'gymnasium==1.4.0' 'numpy==2.4.6' \
  'packaging==26.3' 2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; exit 2; }
cd "$FOLDER"

cat > scenes.py <<'PY'
import sys

import gymnasium as gym
import metaworld  # noqa: F401  (registers the environments)
import numpy as np

gym.logger.min_level = gym.logger.ERROR
RESETS = ([1, 2, 3, 4], [5, 6, 7, 8], None)


def changed(what):
    sys.exit(f"behaviour changed: {what}")


def scenes(observation_BD):
    return [tuple(row[[4, 5, 6, 36, 37, 38]].round(6)) for row in np.atleast_2d(observation_BD)]


def distinct(**options):
    cells = gym.make_vec("Meta-World/MT1", env_name="push-v3", num_envs=4, vector_strategy="sync", **options)
    counts = [len(set(scenes(cells.reset(seed=seed)[0]))) for seed in RESETS]
    cells.close()
    return counts


seeded, free = distinct(seed=7), distinct()
print(f"seed=7:    of 4 cells, distinct scenes after reset(seed=[1, 2, 3, 4]), reset(seed=[5, 6, 7, 8]), reset(): {seeded}")
print(f"no seed:   of 4 cells, distinct scenes after the same resets: {free}")
cell = gym.make("Meta-World/MT1", env_name="push-v3", seed=7)
first, again = (scenes(cell.reset(seed=1)[0]) for _ in range(2))
print(f"reset(seed=1) twice gives the same scene: {first == again}")

if seeded != [1, 1, 1]:
    changed("cells made with one seed no longer share one scene")
if free != [4, 4, 4]:
    changed("cells made without a seed no longer show a scene each")
if first == again:
    changed("the seed of a reset now chooses the scene")
PY
"$FOLDER/venv/bin/python" -W ignore scenes.py 2>errors.log || { cat errors.log >&2; exit 1; }
echo "as described"
