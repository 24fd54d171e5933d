"""Releases for tests: a small real bundle with a verdict on it, keys, and a robot's own TUF client over loopback."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from components.adapters.signing.folder_signature import Signer
from components.artifacts.step_manifest import checkpoint_digest
from components.config.judging.verdict import Check, GateVerdict
from components.release.bundle import find_packed
from components.release.fleet.create import Facts, Made, create_release
from model_core.bundle import CONTRACT, MANIFEST, file_digests
from model_core.spec.contract import PROTOCOL_VERSION, PolicyContract

GOLDEN = Path(__file__).parent / "golden" / "home_aa4ee54" / "home" / "store"
LOCK = "numpy==2.4.1\nmsgpack==1.2.0\n"


def bundle(folder: Path, version: str = "arm/1", *, weights: int = 1, adapter: int = 0, contract: str = "", probe: bytes = b"") -> Path:
    """A bundle around a real contract (JSON), a recorded one by default.

    weights: seed of the base weights. adapter: its size in KiB, 0 for none. probe: the recorded answer, that of the version by default.
    """
    contract = contract or next(GOLDEN.glob("package/*/bento/src/bundle/contract.json")).read_text(encoding="utf-8")
    contract_id = PolicyContract.from_json(json.loads(contract)).contract_id
    checkpoint = folder / "checkpoint"
    (checkpoint / "vqvae").mkdir(parents=True)
    (folder / "probes").mkdir()
    for name in (CONTRACT, f"checkpoint/{CONTRACT}"):
        (folder / name).write_text(contract, encoding="utf-8")
    save_file({"w": np.random.default_rng(weights).random((256, 256), np.float32)}, checkpoint / "model.safetensors")
    save_file({"codes": np.zeros((4, 2), np.float32)}, checkpoint / "vqvae" / "model.safetensors")
    (checkpoint / "config.json").write_text("{}")
    (folder / "probes" / "00.observe").write_bytes(bytes([PROTOCOL_VERSION]) + b"observation")
    (folder / "probes" / "00.chunk").write_bytes(probe or b"chunk of " + version.encode())
    if adapter:
        rng = np.random.default_rng(7)
        save_file({"lora": rng.integers(0, 256, adapter * 1024, dtype=np.uint8)}, checkpoint / "adapter_model.safetensors")
    document = {"model_version": version, "contract_id": contract_id, "files": file_digests(folder)}
    (folder / MANIFEST).write_text(json.dumps(document))
    return folder


def verdict_on(folder: Path, *, promote: bool = True) -> GateVerdict:
    """The gate's verdict on the checkpoint of a bundle."""
    check = Check(name="success", passed=promote, reason="as measured", state="holds" if promote else "fails")
    outcome = "promote" if promote else "reject"
    digest = checkpoint_digest(folder / "checkpoint")
    return GateVerdict(
        promote=promote, reasons=("as measured",), checks=(check,), candidate=digest, outcome=outcome, study="s1", head="ab" * 32
    )


def release(packed: Path, to: Path, keys: Path, **changes: object) -> Made:
    """A release of a bundle that the gate promotes. changes: of the facts."""
    facts = replace(Facts(verdict=verdict_on(packed), lock=LOCK, minimum_agent="0.1.0"), **changes)
    return create_release(find_packed(packed), to, Signer(private_key=keys / "release.pem"), facts)


class _Counting(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        self.server.sent += len(content)  # pyright: ignore[reportAttributeAccessIssue]
        outputfile.write(content)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve a folder on loopback; the server's `sent` counts the bytes of all bodies."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Counting, directory=str(folder))) as server:
        server.sent = 0  # pyright: ignore[reportAttributeAccessIssue]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
