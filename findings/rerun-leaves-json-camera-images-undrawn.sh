#!/usr/bin/env bash
# Rerun 0.41.0 and MCAP 1.6.0: camera frames of the schema foxglove.CompressedImage become images only when they are written in Protobuf.
#
# Expected: MCAP names schema and encoding of each channel; foxglove.CompressedImage is published for JSON and for Protobuf, so a reader
#           that draws one draws the other, or says that it cannot.
# Seen:     Protobuf frames become EncodedImage. The same frames in JSON are converted with exit code 0 and "Processed 3 messages", and
#           no word of warning, into raw bytes (McapMessage:data): a black viewer. `rerun mcap check` finds the JSON file "ok".
# Matters:  a robot that logs JSON (no Protobuf library on board) has a recording in which one viewer shows a camera and the other
#           shows none, and a converted .rrd archive in which the images are no images any more.
# Remedy:   write camera frames in Protobuf (the message has four fields; a few lines suffice), everything else in JSON if you like.
#
# Output seen:
#   protobuf: exit 0, columns of /camera/front: CoordinateFrame:frame EncodedImage:blob EncodedImage:media_type
#   json:     exit 0, columns of /camera/front: McapMessage:data, warnings about it: 0, check: ok
set -euo pipefail

PYTHON=$(command -v python3.11 || command -v python3)
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
changed() { echo "behaviour changed: $1" >&2; exit 1; }

"$PYTHON" -m venv "$FOLDER/venv"
"$FOLDER/venv/bin/pip" install --quiet --disable-pip-version-check 'rerun-sdk==0.41.0' 'mcap==1.6.0' 'protobuf==7.36.2' 'pillow==13.0.0' \
  2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; exit 2; }
export PATH="$FOLDER/venv/bin:$PATH" HOME="$FOLDER" NO_COLOR=1
cd "$FOLDER"
rerun analytics disable >/dev/null 2>&1 || true

cat > write.py <<'PY'
import base64
import io
import json

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from mcap.writer import Writer
from PIL import Image

NAME, STEP_NS = "foxglove.CompressedImage", 100_000_000
buffer = io.BytesIO()
Image.new("RGB", (32, 32), (200, 30, 30)).save(buffer, "PNG")
png = buffer.getvalue()

Field = descriptor_pb2.FieldDescriptorProto
wanted = descriptor_pb2.FileDescriptorProto(name="image.proto", package="foxglove", syntax="proto3", dependency=["google/protobuf/timestamp.proto"])
message = wanted.message_type.add(name="CompressedImage")
message.field.add(name="timestamp", number=1, label=1, type=Field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp")
message.field.add(name="data", number=2, label=1, type=Field.TYPE_BYTES)
message.field.add(name="format", number=3, label=1, type=Field.TYPE_STRING)
message.field.add(name="frame_id", number=4, label=1, type=Field.TYPE_STRING)
timestamps = descriptor_pb2.FileDescriptorProto()
timestamp_pb2.DESCRIPTOR.CopyToProto(timestamps)
pool = descriptor_pool.DescriptorPool()
pool.Add(timestamps)
pool.Add(wanted)
CompressedImage = message_factory.GetMessageClass(pool.FindMessageTypeByName(NAME))


def as_protobuf(nanos):
    frame = CompressedImage(data=png, format="png", frame_id="front")
    frame.timestamp.nanos = nanos
    return frame.SerializeToString()


def as_json(nanos):
    stamp = {"sec": 0, "nsec": nanos}
    return json.dumps({"timestamp": stamp, "frame_id": "front", "format": "png", "data": base64.b64encode(png).decode()}).encode()


stamp = {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
text, data = {"type": "string"}, {"type": "string", "contentEncoding": "base64"}
properties = {"timestamp": stamp, "frame_id": text, "data": data, "format": text}
schemas = {
    "protobuf": ("protobuf", descriptor_pb2.FileDescriptorSet(file=[timestamps, wanted]).SerializeToString(), as_protobuf),
    "json": ("jsonschema", json.dumps({"title": NAME, "type": "object", "properties": properties}).encode(), as_json),
}
for encoding, (schema_encoding, schema, write) in schemas.items():
    with open(f"{encoding}.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/camera/front", encoding, writer.register_schema(NAME, schema_encoding, schema))
        for index in range(3):
            time_ns = index * STEP_NS
            writer.add_message(channel, log_time=time_ns, publish_time=time_ns, data=write(time_ns))
        writer.finish()
PY
python write.py

columns() {  # the columns of the chunk that holds the three messages
  rerun mcap convert "$1.mcap" -o "$1.rrd" >"$1.log" 2>&1 || changed "$1 is no longer converted: $(tail -n 1 "$1.log")"
  rerun rrd print "$1.rrd" 2>/dev/null | sed -n 's/.*with 3 rows.* - \/camera\/front - data columns: \[\(.*\)\].*/\1/p'
}
protobuf=$(columns protobuf)
echo "protobuf: exit 0, columns of /camera/front: $protobuf"
[[ "$protobuf" == *EncodedImage:blob* ]] || changed "frames in Protobuf no longer become EncodedImage"

json=$(columns json)
warnings=$(grep -iE 'warn|error|unsupported|skip' json.log | grep -cvi 'application id' || true)
verdict=$(rerun mcap check json.mcap 2>/dev/null | awk '/camera/ {print $1}')
echo "json:     exit 0, columns of /camera/front: $json, warnings about it: $warnings, check: $verdict"
[ "$json" = "McapMessage:data" ] || changed "frames in JSON are no longer left as raw messages"
[ "$warnings" = 0 ] || changed "there is a warning now"
[ "$verdict" = ok ] || changed "rerun mcap check no longer finds the file ok"
echo "as described"
