#!/usr/bin/env bash
# Prefect 3.8.8: a run that is asked for with an infinite (or NaN) parameter runs with None instead.
#
# Expected: run_deployment(..., parameters={"limit": inf}) starts the flow with inf, as calling the flow does, or refuses it.
# Seen:     parameters travel as JSON, and inf and NaN become null on the way. Client and server accept it without a
#           word; the run of a flow whose parameter may be None is COMPLETED with None. Called in the process the same flow sees inf.
# Matters:  inf is the usual word for "no bound" (speed, loss, tolerance), None often the word for "take the default". A retraining whose
#           caller lifted a bound runs with the default bound, and the run's page shows null.
# Remedy:   send bounds as finite numbers, text or a name of a configuration; refuse non-finite parameters before they are sent.
#
# Output seen:
#   called in the process:   'limit inf'
#   run_deployment with inf: kept by the server {'limit': None}, the run COMPLETED 'limit None'
#   run_deployment with nan: kept by the server {'limit': None}, the run COMPLETED 'limit None'
#   run_deployment with 2.5: kept by the server {'limit': 2.5}, the run COMPLETED 'limit 2.5'
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
SERVER=
finish() {
  if [ -n "$SERVER" ]; then
    kill -INT "$SERVER" 2>/dev/null || true
    for _ in $(seq 20); do kill -0 "$SERVER" 2>/dev/null || break; sleep 0.5; done
    kill -KILL "$SERVER" 2>/dev/null || true
  fi
  rm -rf "$FOLDER"
}
trap finish EXIT
set -m  # background programs keep SIGINT

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'prefect==3.8.8' 'fastapi==0.150.0' 'starlette==1.10.0' 'SQLAlchemy==2.0.58' \
  'pydantic==2.14.3' 2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; exit 2; }
export PATH="$FOLDER/venv/bin:$PATH" PREFECT_HOME="$FOLDER/home" PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
cd "$FOLDER"
PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PREFECT_API_URL="http://127.0.0.1:$PORT/api" PREFECT_LOGGING_LEVEL=ERROR

cat > ask.py <<'PY'
import math
import sys

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.flow_engine import run_flow


def changed(what):
    sys.exit(f"behaviour changed: {what}")


@flow(persist_result=True)
def retrain(limit: float | None = None) -> str:
    return f"limit {limit}"


here = retrain(limit=math.inf)
print(f"called in the process:   {here!r}")
if here != "limit inf":
    changed("a flow called in the process no longer sees inf")

with get_client(sync_client=True) as client:
    client.create_deployment(client.create_flow(retrain), "nightly")
    for value, expected in ((math.inf, None), (math.nan, None), (2.5, 2.5)):
        scheduled = run_deployment("retrain/nightly", parameters={"limit": value}, timeout=0)
        run = client.read_flow_run(scheduled.id)  # what a worker's process does: read the run, carry it out
        state = run_flow(retrain, flow_run=run, return_type="state")
        result = state.result(raise_on_failure=False)
        print(f"run_deployment with {value}: kept by the server {run.parameters}, the run {state.type.value} {result!r}")
        if run.parameters != {"limit": expected} or result != f"limit {expected}":
            changed(f"{value} no longer arrives as {expected}")
PY

prefect server start --host 127.0.0.1 --port "$PORT" >server.log 2>&1 & SERVER=$!
for _ in $(seq 180); do
  python - <<'PY' && break || sleep 1
import os, sys, urllib.request
try:
    urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=2)
except OSError:
    sys.exit(1)
PY
done
python ask.py
echo "as described"
