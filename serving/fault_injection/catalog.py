"""The faults by name, in four groups: to the connection, to the delivery, to the bytes, to the meaning of an answer."""

from __future__ import annotations

HANDSHAKE = {
    "mute": "accept the TCP connection and never send anything",
    "handshake-only": "accept the WebSocket and never answer HELLO",
    "refuse": "answer HELLO with REJECT(CONTRACT)",
    "not-ready": "answer HELLO with REJECT(NOT_READY)",
    "other-contract": "offer a contract with another control rate",
    "wrong-ready-epoch": "answer HELLO with READY of another epoch",
    "hang-up": "close the connection instead of answering HELLO",
}
DELIVERY = {
    "drop": "do not answer",
    "delay": "answer `ms` later than the latency says",
    "duplicate": "answer `count` more times",
    "reorder": "hold this answer back until the next one was sent",
    "replay": "send the oldest kept answer, then the right one",
    "reject": "answer REJECT with `text` as the code (default INTERNAL)",
    "freeze": "stop the whole server for `ms` (pings too)",
    "half-open": "from here on send nothing more on this connection, not even PONG",
    "close": "drop the TCP connection without a closing handshake",
    "kill": "end the process at once with exit code 137",
}
BYTES = {
    "truncate": "cut the answer off at a random place",
    "flip": "flip `count` random bits",
    "noise": "send random bytes",
    "deep": "send arrays nested 5000 deep",
    "huge-length": "send a length prefix of 4 GiB",
    "text": "send a text frame",
    "extension": "send a msgpack extension type",
    "object-dtype": "send the actions as an object array",
    "shape-lie": "send an array whose bytes do not fit its shape",
    "protocol": "send the answer as another protocol version",
    "unknown-type": "send a message of a type that does not exist",
}
MEANING = {
    "nan": "one action is NaN",
    "inf": "one action is infinite",
    "1e9": "one action is 1e9",
    "denormal": "every action is a denormal number",
    "outside": "one action is just past its limit by a third of its range",
    "empty": "a chunk of no rows",
    "short": "half of the rows",
    "long": "twice the rows",
    "narrow": "one action dimension less",
    "wide": "one action dimension more",
    "jump": "every row at the far end of its range",
    "expired": "a chunk that expires at once",
    "wrong-epoch": "of the epoch before",
    "wrong-seq": "answers the request before",
    "next-seq": "answers a request that was not made yet",
    "wrong-session": "of another session",
    "version": "from here on another model version answers, in the same session",
    "contract": "from here on another contract answers, in the same session",
    "other-rate": "names another control rate",
    "no-depth": "without depth tokens and trace",
    "trace-outside": "a trace outside the image",
}
FAULTS = {**HANDSHAKE, **DELIVERY, **BYTES, **MEANING}
LASTING = {"version", "contract"}  # once begun, the fault does not end
