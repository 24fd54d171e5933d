"""A light policy service for tests of the agent, where the real one would load torch: python light_service.py BUNDLE PORT [CANDIDATE].

It reads every file that it serves, as the real one does, and is ready if its golden probe is the one of its model version. Of the
candidate that the file CANDIDATE names it reads the same, and says that it compared one decision more each time it is asked.
"""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import sys
from pathlib import Path


def read_bundle(bundle: Path) -> tuple[dict[str, str], str]:
    """What a bundle says that it is, and what is wrong with it here."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    wrong = [name for name, digest in manifest["files"].items() if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != digest]
    expected = b"chunk of " + manifest["model_version"].encode()
    complaint = f"not what was packed: {wrong}" if wrong else ""
    if not complaint and (bundle / "probes" / "00.chunk").read_bytes() != expected:
        complaint = "1 of 1 golden probes failed: probe 00: actions differ"
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {"bundle_digest": hashlib.sha256(text.encode()).hexdigest(), "contract_id": manifest["contract_id"]}, complaint


def compared(candidate: Path | None, count: int) -> dict[str, object]:
    """As GET /v1/shadow answers, after so many decisions."""
    if candidate is None:
        return {"state": "none"}
    if not candidate.exists():
        return {"state": "no candidate is named", "release": ""}
    named = json.loads(candidate.read_text())
    complaint = read_bundle(Path(named["bundle"]))[1]
    measures = {"action": {"mean": 0.25}, "trace": {"mean": 2.0}}
    task = {"asked": count + 1, "compared": count, "refused": {"count": 1}, "live_refused": 0, "both_refused": 0, "measures": measures}
    return {"state": f"failed: {complaint}" if complaint else "comparing", "release": named["release"], "tasks": {"push": task}}


def serve(bundle: Path, port: int, candidate: Path | None) -> None:
    """The light policy service: it reads every file that it serves, as the real one does, and answers its one probe."""
    served, complaint = read_bundle(bundle)
    counts = itertools.count(1)

    class Service(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_GET(self) -> None:
            state = {"state": "failed" if complaint else "ready", "reason": complaint}
            answers = {"/readyz": lambda: state, "/v1/shadow": lambda: compared(candidate, next(counts))}
            body = json.dumps(answers.get(self.path, lambda: served)()).encode()
            self.send_response(503 if complaint and self.path == "/readyz" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Service).serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
