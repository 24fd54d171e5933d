"""How long a release takes from an object store to a node's cache, whole and verified: digest, signature, every file.

A release of --gib GiB of random weights (one file, as a merged checkpoint), uploaded to the embedded S3 server (SeaweedFS) here and
fetched into an empty cache over loopback, then once more (nothing is fetched, every check of a start is done). The peer is the same file
through the same client, `get` and one SHA-256: what nobody can leave out. For 16 GiB the time is computed from the bytes: fetch, hash
and signature are linear in them. The service's own start (loading, golden probes) is not in it: benchmarks/load_checkpoint.py.

Run: python benchmarks/release_fetch.py [--gib 2] [--work FOLDER]     writes benchmarks/results/release_fetch.json
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, peak_bytes, written  # noqa: E402
from components.adapters.signing.folder_signature import Trust  # noqa: E402
from components.adapters.signing.key_files import make_keys  # noqa: E402
from components.artifacts.files import sha256_file  # noqa: E402
from components.release.fleet.node_cache import fetch_release, upload_release  # noqa: E402
from flows.pipeline.storage import storage  # noqa: E402
from flows.platform.settings import load_settings  # noqa: E402
from tests import fleet  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "release_fetch.json"
WEIGHTS = "bundle/checkpoint/adapter_model.safetensors"
COMPUTED_GIB = 16


def measured(gib: float, work: Path) -> dict[str, float]:
    """Seconds of each step, on an empty store and cache below `work`."""
    keys = work / "keys"
    make_keys(keys, ["lab"])
    trust = Trust(public_key=keys / "release.pub.pem")
    packed = fleet.bundle(work / "packed", adapter=round(gib * 2**20))
    seconds: dict[str, float] = {}

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
    assert (found.fetched_bytes >= gib * 2**30, again.fetched_bytes) == (True, 0)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0, help="of weights")
    parser.add_argument("--work", type=Path, help="a folder with room for five times the size (default: a temporary one)")
    arguments = parser.parse_args()
    load, began = os.getloadavg(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        seconds = measured(arguments.gib, Path(folder))
    fetch = seconds["fetch into an empty cache, verified"]
    result = {
        "conditions": conditions(load, began),
        "gib": arguments.gib,
        "seconds": seconds,
        "MiB_per_s": round(1024 * arguments.gib / fetch, 1),
        "times_the_peer": round(fetch / seconds["peer: get and one sha256"], 2),
        f"seconds_for_{COMPUTED_GIB}_GiB_computed": round(fetch * COMPUTED_GIB / arguments.gib, 1),
        "peak_memory_MiB": round(peak_bytes() / 2**20),
    }
    written(result, RESULT)


if __name__ == "__main__":
    main()
