#!/usr/bin/env bash
# Makes .venv from requirements.lock. Needs: Python 3.11 with venv, make, a C compiler. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON="${PYTHON:-python3.11}"
BEGIN=$(date +%s)
TOTAL=5
step() { echo "[setup $1/$TOTAL, $(( $(date +%s) - BEGIN )) s] $2"; }
fail() { echo "setup: $1" >&2; exit 1; }

# pip lists every mirror it does not find a package on; only real trouble is worth a reader's time
quiet_pip() {
  local log; log=$(mktemp)
  if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" >"$log" 2>&1; then
    grep -v 'is ignored: it is neither' "$log" | tail -n 25 >&2
    rm -f "$log"
    fail "pip install failed (above). Check the network to your package index, then run 'make setup' again; what was installed stays."
  fi
  rm -f "$log"
}

command -v "$PYTHON" >/dev/null 2>&1 || PYTHON=python3
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
  || fail "Python 3.11 is needed, found: $("$PYTHON" --version 2>&1). Install it, or name it: make setup PYTHON=/path/to/python3.11"

step 1 "off-screen rendering (OSMesa) for the simulator"
if ! ldconfig -p 2>/dev/null | grep -q libOSMesa; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libosmesa6) >/dev/null 2>&1 \
      || fail "could not install the Debian package libosmesa6. Install it by hand: apt-get install libosmesa6"
  else
    fail "the library OSMesa is missing and this user may not install it. Run: sudo apt-get install libosmesa6   (then 'make setup' again)"
  fi
fi

step 2 "virtual environment and PyTorch"
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
# deepspeed is built from source and asks the installed torch for its version, so torch and build tools come first
quiet_pip $(grep -E '^(torch|numpy|ninja|packaging|psutil|py-cpuinfo|setuptools|wheel)==' requirements.lock)

step 3 "DeepSpeed"
DS_BUILD_OPS=0 quiet_pip --no-build-isolation $(grep -E '^deepspeed==' requirements.lock)

step 4 "everything else in requirements.lock (about two minutes)"
quiet_pip -r requirements.lock

step 5 "actwright itself"
quiet_pip --no-deps --no-build-isolation --editable .
touch .venv/.ready
step 5 "done"
