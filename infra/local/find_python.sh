#!/usr/bin/env bash
# Prints "VERSION PATH" for every supported Python of this machine, in the order that setup prefers: 3.11, then the newest.
#   find_python.sh           one line for each version that was found
#   find_python.sh --first   the path of the first one alone; without any, where it looked, and exit code 1
#   find_python.sh --looked  tab-separated: VERSION, place, what came of it ("found", or why not), for every place that was looked at
# Every candidate is asked for its version, because a name on the path may be a pyenv shim without a Python behind it.
set -euo pipefail

VERSIONS="3.11 3.13 3.12"
ASK='import sys
version = "%d.%d" % sys.version_info[:2]
try:
    import ensurepip, venv
except ImportError:
    sys.exit(f"{version} without venv: apt-get install python{version}-venv")
print(version, sys.executable)'

# the places of one version: the path, pyenv and uv
places() {
  local place
  type -aP "python$1" || true
  for place in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/cpython-"$1".*/bin; do
    [ ! -x "$place/python$1" ] || echo "$place/python$1"
  done
  type -aP python3 || true
}

# looks at the places of one version until one of them answers with it; prints a line for each
look() {
  local place answer seen=" "
  while read -r place; do
    [[ "$seen" != *" $place "* ]] || continue
    seen+="$place "
    if answer=$("$place" -c "$ASK" 2>/dev/null); then
      if [ "${answer%% *}" = "$1" ]; then printf '%s\t%s\tfound\n' "$1" "${answer#* }"; return; fi
      printf '%s\t%s\tis Python %s\n' "$1" "$place" "${answer%% *}"
    else
      answer=$("$place" -c "$ASK" 2>&1 >/dev/null || true)
      [[ "$answer" == *"without venv"* ]] || answer="does not start"
      printf '%s\t%s\t%s\n' "$1" "$place" "$answer"
    fi
  done < <(places "$1")
  printf '%s\tPATH, pyenv, uv\tnot found\n' "$1"
}

mode="${1:-}"
for version in $VERSIONS; do
  looked=$(look "$version")
  IFS=$'\t' read -r _ found outcome <<<"${looked##*$'\n'}"
  [ "$outcome" = found ] || found=""
  case "$mode" in
    --looked) echo "$looked" ;;
    --first) [ -z "$found" ] || { echo "$found"; exit 0; } ;;
    *) [ -z "$found" ] || echo "$version $found" ;;
  esac
done
if [ "$mode" = --first ]; then
  echo "Python 3.11, 3.12 or 3.13 with venv is needed, none was found:" >&2
  bash "$0" --looked >&2
  echo "Fix: install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make setup PYTHON=/path/to/python" >&2
  exit 1
fi
