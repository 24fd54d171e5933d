#!/usr/bin/env bash
# DVC 3.67.1 and PyYAML 6.0.3: an experiment with learning rate 0.00001 hands the training script the text '1e-05'.
#
# Expected: `dvc exp run -S train.lr=0.00001` gives the stage a number, as `-S train.lr=0.0001` does.
# Seen:     0.0001 arrives as a float, 0.00001 as a str. DVC writes the overridden value with ruamel.yaml, by YAML 1.2, where 1e-05 is a
#           number. PyYAML, which most training scripts read params.yaml with, follows YAML 1.1, where a float needs a dot: "1e-05" is text.
#           The step count 10**16 (`1e16`) has the same fate. DVC itself shows and locks a number, so its tables look right.
# Matters:  a sweep over learning rates works for the large ones only. Code that compares or formats the value goes on with a string,
#           code that calculates with it ends with a TypeError that names neither DVC nor YAML.
# Remedy:   keep parameters in JSON (DVC reads and writes it, and JSON knows 1e-05), or read params.yaml with a YAML 1.2 reader.
#
# Output seen:
#   -S train.lr=0.0001:  params.yaml: float 0.0001 params.json: float 0.0001; lr: 0.0001
#   -S train.lr=0.00001: params.yaml: str '1e-05' params.json: float 1e-05; lr: 1e-05
#   {"params.yaml": {"train.lr": {"old": 0.001, "new": 1e-05, "diff": -0.00099}}, "params.json": {"train.lr": {... the same ...}}}
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'dvc==3.67.1' 'PyYAML==6.0.3' 'ruamel.yaml==0.19.1' 2>"$FOLDER/pip.log" \
  || { cat "$FOLDER/pip.log" >&2; exit 2; }
export PATH="$FOLDER/venv/bin:$PATH" DVC_NO_ANALYTICS=true DVC_SITE_CACHE_DIR="$FOLDER/site" XDG_CONFIG_HOME="$FOLDER/config"
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=n@example.org GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=n@example.org

mkdir "$FOLDER/project" && cd "$FOLDER/project"
git init --quiet && dvc init --quiet
printf 'train:\n  lr: 0.001\n' > params.yaml
printf '{"train": {"lr": 0.001}}\n' > params.json
cat > train.py <<'PY'
import json
import yaml

for name, read in (("params.yaml", yaml.safe_load), ("params.json", json.load)):
    with open(name) as file:
        lr = read(file)["train"]["lr"]
    print(f"{name}: {type(lr).__name__} {lr!r}", file=open("seen.txt", "a"))
PY
cat > dvc.yaml <<'YAML'
stages:
  train:
    cmd: rm -f seen.txt && python train.py
    deps: [train.py]
    params:
      - train
      - params.json: [train]
    outs: [seen.txt]
YAML
git add --all && git commit --quiet --message start

dvc exp run --quiet -S train.lr=0.0001 -S params.json:train.lr=0.0001
echo "-S train.lr=0.0001:  $(paste -sd' ' seen.txt); $(grep lr: params.yaml | xargs)"
grep -qx 'params.yaml: float 0.0001' seen.txt || changed "0.0001 no longer arrives as a float"

dvc exp run --quiet -S train.lr=0.00001 -S params.json:train.lr=0.00001
echo "-S train.lr=0.00001: $(paste -sd' ' seen.txt); $(grep lr: params.yaml | xargs)"
grep -qx "params.yaml: str '1e-05'" seen.txt || changed "0.00001 no longer arrives as the text '1e-05'"
grep -qx 'params.json: float 1e-05' seen.txt || changed "0.00001 no longer arrives as a float by JSON"
dvc params diff --json > diff.json
cat diff.json; echo
python - <<'PY' || changed "dvc params diff no longer shows a number"
import json

new = json.load(open("diff.json"))["params.yaml"]["train.lr"]["new"]
raise SystemExit(not (isinstance(new, float) and new == 1e-05))
PY
echo "as described"
