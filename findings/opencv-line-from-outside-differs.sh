#!/usr/bin/env bash
# opencv-python-headless 4.11.0.86 and 5.0.0.93: an anti-aliased line that begins outside the image is another line in each version.
#
# Expected: cv2.line draws the same pixels in both, as it does for lines that lie inside the image.
# Seen:     the part inside is cut off at the border with another rounding: of a line from 20 pixels outside, 576 pixels differ by up to
#           77 grey levels. A line inside the image is equal.
# Matters:  a policy that is steered by a line drawn into its image sees another line in production than in training, when the two images
#           were made with different OpenCV versions and a point lies outside the frame. Nothing fails.
# Remedy:   bring points inside the image before drawing, or draw with code whose version is that of the model.
#
# Output seen:
#   OpenCV 4.11.0 and 5.0.0, line inside the image: 0 pixels differ
#   OpenCV 4.11.0 and 5.0.0, line from outside: 576 pixels differ, by up to 77 grey levels
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

cat > "$FOLDER/draw.py" <<'PY'
import sys

import cv2
import numpy as np

inside, outside = np.zeros((2, 256, 256, 3), np.uint8)
cv2.line(inside, (20, 30), (100, 199), (0, 255, 255), 3, cv2.LINE_AA)
cv2.line(outside, (-20, 30), (100, 299), (0, 255, 255), 3, cv2.LINE_AA)
np.savez(sys.argv[1], inside=inside, outside=outside, version=cv2.__version__)
PY
cat > "$FOLDER/compare.py" <<'PY'
import sys

import numpy as np

one, two = (np.load(name) for name in sys.argv[1:])
versions = f"OpenCV {one['version']} and {two['version']}"
for name, text in (("inside", "line inside the image"), ("outside", "line from outside")):
    away = np.abs(one[name].astype(int) - two[name]).max(-1)
    reach = f", by up to {away.max()} grey levels" if away.any() else ""
    print(f"{versions}, {text}: {(away > 0).sum()} pixels differ{reach}")
sys.exit(0 if (one["inside"] == two["inside"]).all() and (one["outside"] != two["outside"]).any() else 1)
PY

for version in 4.11.0.86 5.0.0.93; do
  "$PYTHON" -m venv "$FOLDER/$version"
  "$FOLDER/$version/bin/pip" install --quiet --disable-pip-version-check "opencv-python-headless==$version" 'numpy==2.4.6' 2>"$FOLDER/pip.log" \
    || { cat "$FOLDER/pip.log" >&2; exit 2; }
  "$FOLDER/$version/bin/python" "$FOLDER/draw.py" "$FOLDER/$version.npz" || exit 2
done
"$FOLDER/5.0.0.93/bin/python" "$FOLDER/compare.py" "$FOLDER/4.11.0.86.npz" "$FOLDER/5.0.0.93.npz" || changed "see above"
