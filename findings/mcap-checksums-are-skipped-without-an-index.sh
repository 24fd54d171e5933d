#!/usr/bin/env bash
# mcap 1.6.0: `make_reader(file, validate_crcs=True)` gives a damaged message without an error when the file has no chunk index.
#
# Expected: with validate_crcs=True a chunk whose bytes do not fit its checksum raises CRCValidationError, as it does in an indexed file.
# Seen:     a file may leave out its index (the format says so; writers have an option for it). The reader then reads it from front to
#           back with a new reader, which is made without validate_crcs: the flipped bit comes back as a value, 9000 instead of 1000.
#           The same bytes read with NonSeekingReader(file, validate_crcs=True) raise.
# Matters:  a program that asks for checksums believes that damage is found. It is, in most files, and not in those of recorders that save time
#           by writing no index, which are the ones that a crash leaves behind.
# Remedy:   refuse files whose summary has no chunk index where messages are counted, or read those with NonSeekingReader itself.
#
# Output seen:
#   with an index:    make_reader: CRCValidationError; NonSeekingReader: CRCValidationError
#   without an index: make_reader: {"value": 9000}; NonSeekingReader: CRCValidationError
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'mcap==1.6.0' 2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; exit 2; }

cat > "$FOLDER/show.py" <<'PY'
import io
import sys

from mcap.reader import NonSeekingReader, make_reader
from mcap.writer import CompressionType, IndexType, Writer


def damaged(indexes):
    file = io.BytesIO()
    writer = Writer(file, compression=CompressionType.NONE, index_types=indexes)
    writer.start()
    channel = writer.register_channel("/t", "json", writer.register_schema("n", "", b""))
    for k in range(10):
        writer.add_message(channel, k, b'{"value": 1000}', k)
    writer.finish()
    data = bytearray(file.getvalue())
    data[data.index(b"1000")] ^= 8
    return bytes(data)


for name, indexes in (("with an index:   ", IndexType.ALL), ("without an index:", IndexType.NONE)):
    seen = []
    for reader in (make_reader, NonSeekingReader):
        try:
            seen.append(next(iter(reader(io.BytesIO(damaged(indexes)), validate_crcs=True).iter_messages()))[2].data.decode())
        except Exception as error:
            seen.append(type(error).__name__)
    sys.stdout.write(f"{name} make_reader: {seen[0]}; NonSeekingReader: {seen[1]}\n")
PY
"$FOLDER/venv/bin/python" "$FOLDER/show.py" | tee "$FOLDER/seen.txt"
grep -q '^with an index: *make_reader: CRCValidationError' "$FOLDER/seen.txt" || changed "an indexed file is no longer checked"
grep -q '^without an index: make_reader: {"value": 9000}; NonSeekingReader: CRCValidationError' "$FOLDER/seen.txt" \
  || changed "a file without an index is checked now"
echo "as described"
