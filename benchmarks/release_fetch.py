"""How long a release takes from an object store until its policy service is ready on an empty node: fetched, verified, loaded, probed.

A release of --gib GiB of random weights in float32 (an untrained policy of our own layout that is as deep as that takes), uploaded to the
embedded S3 server (SeaweedFS) here and fetched into an empty cache over loopback (digest, signature, every file), then once more (nothing
is fetched, every check of a start is done); then the service is started on what was fetched, until it is ready: every file hashed again,
weights loaded, the processor's numerics measured, one golden probe answered, decisions timed (warm-up). The peer of the fetch is the same
file through the same client, `get` and one SHA-256: what cannot be left out. For 16 GiB fetch and loading are computed, which grow with
the bytes; probe and warm-up are some seven decisions of that network on the processor it has, and are told apart.

Run: python benchmarks/release_fetch.py [--gib 2] [--work FOLDER]     writes benchmarks/results/release_fetch.json
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, peak_bytes, written  # noqa: E402
from components.adapters.signing.folder_signature import Trust  # noqa: E402
from components.adapters.signing.key_files import make_keys  # noqa: E402
from components.artifacts.files import sha256_file  # noqa: E402
from components.config.recipe import PackageConfig  # noqa: E402
from components.deployment.gateway_service import Listening, running_gateway  # noqa: E402
from components.release.fleet.node_cache import fetch_release, upload_release  # noqa: E402
from components.release.package import write_bundle  # noqa: E402
from flows.pipeline.storage import storage  # noqa: E402
from flows.platform.settings import load_settings  # noqa: E402
from model_core.tiny import TinySize  # noqa: E402
from tests import fleet  # noqa: E402
from tests.fakes import make_embodiment  # noqa: E402
from tests.tiny_checkpoint import write_tiny_checkpoint  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "release_fetch.json"
WEIGHTS = "bundle/checkpoint/model.safetensors"
COMPUTED_GIB = 16
START = "start of the service, until it is ready"
PARTS = {"load": "hashes, loading, numerics", "probes": "golden probe", "warm_up": "warm-up"}
_PATIENCE_S = 3600.0


def policy(folder: Path, size: TinySize) -> Path:
    """The bundle of an untrained policy with one golden probe."""
    write_tiny_checkpoint(folder / "checkpoint", embodiment=make_embodiment(size=32), size=size)
    (folder / "bundle").mkdir()
    write_bundle(PackageConfig(golden_probes=1), folder / "checkpoint", "arm/1", folder / "bundle", None)
    return folder / "bundle"


def deep_enough(gib: float) -> TinySize:
    """So many decoder layers, of 113 MB each, that the weights have about this size."""
    wide = TinySize(width=1536, layers=1, heads=12, kv_heads=12, feed_forward=4096, projector=1024, stem=(8, 16, 16))
    layer_bytes = 4 * (4 * wide.width**2 + 3 * wide.width * wide.feed_forward)
    return replace(wide, layers=max(round(gib * 2**30 / layer_bytes), 1))


def ready_after(bundle: Path, log: Path) -> dict[str, float]:
    """Seconds from the start of the policy service until it is ready, and the parts of them that its log tells."""
    began = time.perf_counter()
    with running_gateway(bundle, Listening(), log=log, ready_timeout_s=_PATIENCE_S):
        whole = time.perf_counter() - began
    told = dict(re.findall(r" (load|probes|warm_up)_s=([0-9.]+)", log.read_text()))
    parts = {f"  of it {name}": float(told[part]) for part, name in PARTS.items()}
    return {START: round(whole, 2)} | parts


def measured(gib: float, work: Path) -> dict[str, float]:
    """Seconds of each step, on an empty store and cache below `work`."""
    keys = work / "keys"
    make_keys(keys, ["lab"])
    trust = Trust(public_key=keys / "release.pub.pem")
    seconds: dict[str, float] = {}
    packed = policy(work / "packed", deep_enough(gib))

    def timed(name: str, began: float) -> None:
        seconds[name] = round(time.perf_counter() - began, 2)

    began = time.perf_counter()
    made = fleet.release(packed, work / "releases", keys)
    timed("create", began)
    digest = made.release.digest
    with storage(load_settings().model_copy(update={"home": work / "home"})) as (store, _):
        began = time.perf_counter()
        upload_release(store, made.folder, trust)
        timed("upload, verified before", began)
        began = time.perf_counter()
        store.get(f"releases/{digest}/{WEIGHTS}", work / "plain")
        sha256_file(work / "plain")
        timed("peer: get and one sha256", began)
        (work / "plain").unlink()
        began = time.perf_counter()
        found = fetch_release(store, digest, work / "cache", trust)
        timed("fetch into an empty cache, verified", began)
        began = time.perf_counter()
        again = fetch_release(store, digest, work / "cache", trust)
        timed("fetch of what is there", began)
    assert found.fetched_bytes >= 0.9 * gib * 2**30
    assert again.fetched_bytes == 0
    seconds |= ready_after(found.folder / "bundle", work / "gateway.log")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0, help="of weights")
    parser.add_argument("--work", type=Path, help="a folder with room for five times the size (default: a temporary one)")
    arguments = parser.parse_args()
    load, began = os.getloadavg(), time.perf_counter()
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        seconds = measured(arguments.gib, Path(folder))
    fetch, loading = seconds["fetch into an empty cache, verified"], seconds["  of it hashes, loading, numerics"]
    scale = COMPUTED_GIB / arguments.gib
    result = {
        "conditions": conditions(load, began),
        "gib": arguments.gib,
        "seconds": seconds,
        "MiB_per_s": round(1024 * arguments.gib / fetch, 1),
        "times_the_peer": round(fetch / seconds["peer: get and one sha256"], 2),
        "seconds_to_ready": round(fetch + seconds[START], 1),
        f"seconds_for_{COMPUTED_GIB}_GiB_computed": round(fetch * scale, 1),
        f"seconds_until_{COMPUTED_GIB}_GiB_are_loaded_computed": round((fetch + loading) * scale, 1),
        "peak_memory_MiB": round(peak_bytes() / 2**20),
    }
    written(result, RESULT)


if __name__ == "__main__":
    main()
