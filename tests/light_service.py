"""A light policy service for tests of the agent, where the real one would load torch: python light_service.py BUNDLE PORT.

It reads every file that it serves, as the real one does, and is ready if its golden probe is the one of its model version.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
from pathlib import Path


def serve(bundle: Path, port: int) -> None:
    """The light policy service: it reads every file that it serves, as the real one does, and answers its one probe."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    wrong = [name for name, digest in manifest["files"].items() if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != digest]
    expected = b"chunk of " + manifest["model_version"].encode()
    complaint = f"not what was packed: {wrong}" if wrong else ""
    if not complaint and (bundle / "probes" / "00.chunk").read_bytes() != expected:
        complaint = "1 of 1 golden probes failed: probe 00: actions differ"
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    served = {"bundle_digest": hashlib.sha256(text.encode()).hexdigest(), "contract_id": manifest["contract_id"]}

    class Service(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_GET(self) -> None:
            state = {"state": "failed" if complaint else "ready", "reason": complaint}
            body = json.dumps(state if self.path == "/readyz" else served).encode()
            self.send_response(503 if complaint and self.path == "/readyz" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Service).serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
