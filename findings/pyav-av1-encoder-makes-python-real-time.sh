#!/usr/bin/env bash
# PyAV 18.1.0 (SVT-AV1 4.1.0 in its wheel): a process of root that writes AV1 is a real-time process from then on.
#
# Expected: encoding a film leaves the scheduling of the Python process as it was, as libx264 does.
# Seen:     with the first frame that libsvtav1 gets, the calling thread goes from SCHED_OTHER to SCHED_FIFO, priority 99, and stays there
#           when the file is closed. Every process that it starts later inherits that. The encoder sets it for its own threads and for the
#           thread that called, where the user may (root, as in most containers); for other users nothing changes. No option turns it off.
# Matters:  AV1 by libsvtav1 is the default of LeRobot's recorder. A recorder, an exporter or a training job that wrote one film runs before
#           every ordinary process of the machine afterwards: control loops, drivers and watchdogs wait for it, two such processes take a
#           machine of two cores for themselves. Nothing is logged, `nice` shows nothing, `ps -eo cls,rtprio,args` does.
# Remedy:   encode in a process of its own, or call os.sched_setscheduler for the process and its threads after the first frame, or take
#           the right away (a container without CAP_SYS_NICE).
#
# Output seen (as root):
#   libx264:   before SCHED_OTHER 0, while encoding SCHED_OTHER 0, after closing SCHED_OTHER 0, a process started then SCHED_OTHER
#   libsvtav1: before SCHED_OTHER 0, while encoding SCHED_FIFO 99, after closing SCHED_FIFO 99, a process started then SCHED_FIFO
set -euo pipefail

[ "$(id -u)" = 0 ] || { echo "run this as root (in a container): other users may not become real-time" >&2; exit 2; }
PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'av==18.1.0' 'numpy==2.4.6' 2>"$FOLDER/pip.log" \
  || { cat "$FOLDER/pip.log" >&2; exit 2; }
cat > "$FOLDER/write.py" <<'PY'
import os
import subprocess
import sys

import av
import numpy as np

NAMES = {os.SCHED_OTHER: "SCHED_OTHER", os.SCHED_FIFO: "SCHED_FIFO"}


def scheduling() -> str:
    return f"{NAMES[os.sched_getscheduler(0)]} {os.sched_getparam(0).sched_priority}"


told = [f"before {scheduling()}"]
with av.open(sys.argv[2], "w", format="mp4") as film:
    stream = film.add_stream(sys.argv[1], rate=20)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for shade in range(0, 80, 10):
        film.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")))
    told.append(f"while encoding {scheduling()}")
    film.mux(stream.encode())
told.append(f"after closing {scheduling()}")
child = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
told.append("a process started then " + NAMES[int(subprocess.run(child, capture_output=True, text=True, check=True).stdout)])
print(", ".join(told))
PY
for encoder in libx264 libsvtav1; do
  "$FOLDER/venv/bin/python" "$FOLDER/write.py" "$encoder" "$FOLDER/$encoder.mp4" >"$FOLDER/$encoder.txt" 2>"$FOLDER/log" || { cat "$FOLDER/log" >&2; exit 2; }
  echo "$encoder: $(cat "$FOLDER/$encoder.txt")"
done
ORDINARY="before SCHED_OTHER 0, while encoding SCHED_OTHER 0, after closing SCHED_OTHER 0, a process started then SCHED_OTHER"
REALTIME="before SCHED_OTHER 0, while encoding SCHED_FIFO 99, after closing SCHED_FIFO 99, a process started then SCHED_FIFO"
grep -qx "$ORDINARY" "$FOLDER/libx264.txt" || changed "libx264 changes the scheduling, or this shell is not an ordinary process"
grep -qx "$REALTIME" "$FOLDER/libsvtav1.txt" || changed "libsvtav1 leaves the scheduling alone"
echo "as described"
