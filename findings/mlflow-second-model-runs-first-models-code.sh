#!/usr/bin/env bash
# MLflow 3.17.2: of two models loaded in one process, the second runs the code that was packed with the first.
#
# Expected: each version packs its own code (code_paths), so a champion and a candidate loaded one after the other answer each by their own.
# Seen:     load_model puts the packed code folder at the front of sys.path and imports by name. A module of that name is already in
#           sys.modules, so the candidate silently gets the champion's module. No warning, no error; alone it answers right.
# Matters:  a comparison of champion and candidate in one process compares the champion's preprocessing with itself, and which one is
#           judged wrongly depends on the order of loading. The numbers look plausible.
# Remedy:   load each version in a process of its own.
#
# Output seen (version 1 packs SCALE = 1, version 2 packs SCALE = 2; both are asked for 10):
#   loaded alone:     version 1 -> [10], version 2 -> [20]
#   loaded 1, then 2: version 1 -> [10], version 2 -> [10], warnings about it: 0
#   loaded 2, then 1: version 1 -> [20], version 2 -> [20], warnings about it: 0
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'mlflow-skinny==3.17.2' 'numpy==2.4.6' 'pandas==3.1.1' 2>"$FOLDER/pip.log" \
  || { cat "$FOLDER/pip.log" >&2; exit 2; }
export PATH="$FOLDER/venv/bin:$PATH" MLFLOW_DISABLE_TELEMETRY=true PYTHONWARNINGS=default
cd "$FOLDER"

cat > save.py <<'PY'
import sys

import mlflow

sys.path.insert(0, ".")
mlflow.pyfunc.save_model(sys.argv[1], python_model="model.py", code_paths=["preprocessing"], pip_requirements=["numpy"])
PY
for version in 1 2; do
  mkdir -p "source$version/preprocessing"
  printf 'SCALE = %s\n' "$version" > "source$version/preprocessing/__init__.py"
  cat > "source$version/model.py" <<'PY'
import mlflow
from preprocessing import SCALE


class Policy(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[int], params=None):
        return [SCALE * value for value in model_input]


mlflow.models.set_model(Policy())
PY
  (cd "source$version" && python ../save.py "../model$version") >save.log 2>&1 || { cat save.log >&2; exit 2; }
done

cat > load.py <<'PY'
import sys

import mlflow

models = {version: mlflow.pyfunc.load_model(f"model{version}") for version in sys.argv[1:]}
print(", ".join(f"version {version} -> {models[version].predict([10])}" for version in sorted(models)))
PY
ask() { python load.py "$@" 2>warnings.log; }
about_it() { grep -ciE 'preprocessing|already (imported|loaded)|sys\.modules|conflict' warnings.log || true; }

first=$(ask 1); second=$(ask 2)
echo "loaded alone:     $first, $second"
[ "$first, $second" = "version 1 -> [10], version 2 -> [20]" ] || changed "a model loaded alone no longer runs its own code"

both=$(ask 1 2)
echo "loaded 1, then 2: $both, warnings about it: $(about_it)"
[ "$both" = "version 1 -> [10], version 2 -> [10]" ] || changed "the second model no longer runs the first model's code"
[ "$(about_it)" = 0 ] || changed "there is a warning now"

both=$(ask 2 1)
echo "loaded 2, then 1: $both, warnings about it: $(about_it)"
[ "$both" = "version 1 -> [20], version 2 -> [20]" ] || changed "the order of loading no longer decides"
echo "as described"
