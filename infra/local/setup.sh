#!/usr/bin/env bash
# Makes .venv (or the folder VENV) from requirements.lock. Needs: Python 3.11, 3.12 or 3.13 with venv, make, a C compiler. Safe to run again.
# PYTHON names the interpreter; without it 3.11 is taken where the machine has it, else the newest of the others.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON="${PYTHON:-}"
VENV="${VENV:-.venv}"
BEGIN=$(date +%s)
TOTAL=6
step() { echo "[setup $1/$TOTAL, $(( $(date +%s) - BEGIN )) s] $2"; }
fail() { echo "setup: $1" >&2; exit 1; }

# pip lists every mirror it does not find a package on; only real trouble is worth a reader's time. Bytecode is made
# apart from it, on every core at once and beside the downloads.
quiet_pip() {
  local log; log=$(mktemp)
  if ! "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@" >"$log" 2>&1; then
    grep -v 'is ignored: it is neither' "$log" | tail -n 25 >&2
    rm -f "$log"
    fail "pip install failed (above). Check the network to your package index, then run 'make setup' again; what was installed stays."
  fi
  rm -f "$log"
}

# Left out, a fifth of the work: tests of packages, and the models of transformers, of which the few in use are compiled when they are
# imported. A package may carry files for other versions of Python, which do not compile here and are never imported.
SELDOM='site-packages/.*/tests?/|site-packages/transformers/models/(?!auto/)[^/]+/'
compile() {
  "$VENV/bin/python" -m compileall -q -j 0 -x "$SELDOM" "$VENV"/lib/python*/site-packages model_core components flows serving >/dev/null 2>&1 || true
}

[ -n "$PYTHON" ] || PYTHON=$(bash infra/local/find_python.sh --first) || exit 1
"$PYTHON" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
  || fail "Python 3.11, 3.12 or 3.13 with venv is needed, got PYTHON=$PYTHON: $("$PYTHON" --version 2>&1 | head -n 1). Fix: name another: make setup PYTHON=/path/to/python"
if [ -x "$VENV/bin/python" ]; then
  version='import sys; print("%d.%d" % sys.version_info[:2])'
  asked=$("$PYTHON" -c "$version"); there=$("$VENV/bin/python" -c "$version")
  [ "$asked" = "$there" ] || fail "$VENV holds Python $there, asked for was $asked ($PYTHON). Fix: rm -r $VENV, then run this again"
fi

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
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
# deepspeed is built from source and asks the installed torch for its version, so torch and build tools come first
quiet_pip -c requirements.lock $(grep -E '^(torch|numpy|ninja|packaging|psutil|py-cpuinfo|setuptools|wheel)==' requirements.lock)

step 3 "DeepSpeed"
DS_BUILD_OPS=0 quiet_pip --no-deps --no-build-isolation $(grep -E '^deepspeed==' requirements.lock)

# what takes long says how far it is, every 15 s until the work beside it ends, however that ends
telling=""
trap '[ -z "$telling" ] || kill "$telling" 2>/dev/null || true' EXIT
tell_meanwhile() { while sleep 15 >/dev/null 2>&1; do "$@"; done & telling=$!; disown "$telling"; }
told() { kill "$telling" 2>/dev/null || true; telling=""; }

locked=$(grep -cE '^[A-Za-z0-9]' requirements.lock)
installed() {
  local found; found=$(find "$VENV"/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l)  # pip and an older actwright are more
  step 4 "$(( found < locked ? found : locked )) of $locked are installed (fetched in groups of 32)"
}
step 4 "the other packages of requirements.lock, $locked in all"
compile & compiling=$!
tell_meanwhile installed
# One pip for each core: alone, it waits for its downloads, then unpacks on one core. The lock names every package, so nothing is left to
# be resolved, and no two groups install the same one.
export VENV; export -f quiet_pip fail
grep -E '^[A-Za-z0-9]' requirements.lock | xargs -d '\n' -P "$(nproc)" -n 32 bash -c 'quiet_pip --no-deps "$@"' pip || exit 1
told

step 5 "actwright itself"
quiet_pip --no-deps --no-build-isolation --editable .
"$VENV/bin/python" -m pip check --quiet --disable-pip-version-check \
  || fail "the packages above do not fit together. Fix: rm -r $VENV, then run this again; if it stays so, requirements.lock is at fault"

step 6 "bytecode of all packages, and the tables that new homes begin with"
tables() {
  local log; log=$(mktemp)
  "$VENV/bin/python" -m flows.platform.empty_databases >"$log" 2>&1 || {
    tail -n 25 "$log" >&2
    echo "setup: the empty databases of MLflow and Prefect were not made (above); the first run makes them itself" >&2
  }
  rm -f "$log"
}
tell_meanwhile step 6 "still at it"
wait "$compiling"
tables & preparing=$!
compile
wait "$preparing"
told
touch "$VENV/.ready"
step 6 "done"
