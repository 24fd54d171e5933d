#!/usr/bin/env bash
# DVC 3.67.1: with --quiet a command that fails writes nothing at all, on standard error neither.
#
# Expected: its help says "-q, --quiet  Be quiet."; the user guide: nothing is written to standard output. Errors stay on standard error.
# Seen:     `dvc add --quiet` while another command holds the repository's lock ends after 3 s with exit code 1 and not a byte on either
#           stream; without --quiet it says "Unable to acquire lock". The option raises the log level above ERROR.
# Matters:  a program that calls DVC with --quiet can't tell a held lock, which ends by itself, from data that are missing, and can't wait.
# Remedy:   call it without --quiet; what it says on standard output where nobody reads it costs nothing.
#
# Output seen:
#   quiet:   exit 1, 0 bytes
#   not:     exit 1, Unable to acquire lock
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'dvc==3.67.1' 2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; exit 2; }

mkdir "$FOLDER/repository"
cd "$FOLDER/repository"
export PATH="$FOLDER/venv/bin:$PATH" DVC_NO_ANALYTICS=true
dvc init --no-scm --quiet
mkdir data
echo one > data/file

# What another command of DVC does for as long as it works: an exclusive lock of this file.
touch .dvc/tmp/lock
exec 9>>.dvc/tmp/lock
flock --exclusive 9

code=0
dvc add --quiet data >"$FOLDER/quiet" 2>&1 9>&- || code=$?
echo "quiet:   exit $code, $(wc -c <"$FOLDER/quiet") bytes"
[ "$code" = 1 ] && [ ! -s "$FOLDER/quiet" ] || changed "with --quiet it says why"

code=0
dvc add data >"$FOLDER/loud" 2>&1 9>&- || code=$?
grep -o 'Unable to acquire lock' "$FOLDER/loud" | sed "s/^/not:     exit $code, /" || changed "without --quiet the lock is not named"

flock --unlock 9
dvc add data >/dev/null 2>&1 9>&- || changed "the lock was not what stopped it"
