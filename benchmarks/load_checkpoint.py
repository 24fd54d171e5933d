"""Peak memory and time of loading a sharded checkpoint of more than 2 GB in bf16, against torch.load + load_state_dict.

Each side runs in its own process and touches every weight, so that memory mapping cannot hide anything:

    ours   load_pretrained(shards, dtype=bfloat16)      stored as bf16, and stored as fp32 (twice the bytes)
    peer   build the model in bf16, torch.load(model.pt) of one file, load_state_dict

Peak memory is the process's highest resident set (VmHWM) less what it held after `import torch` and our modules.
Run: python benchmarks/load_checkpoint.py [--work FOLDER]      writes benchmarks/results/load_checkpoint.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import peak_bytes  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "load_checkpoint.json"
LIMIT = 1.25
REPEATS = 2


def network():
    """7B-D at its real width with fewer layers and rows: 1.12 B parameters, 2.24 GB in bf16."""
    from model_core.network.presets import molmoact_7b_d

    full = molmoact_7b_d()
    return replace(
        full,
        vit=replace(full.vit, num_hidden_layers=4),
        adapter=replace(full.adapter, vit_layers=(-1, -3)),
        llm=replace(full.llm, num_hidden_layers=3, vocab_size=32768),
        image_patch_id=32770,
    )


def write(folder: Path) -> None:
    """The same random weights in three forms; one tensor is in memory at a time for the shards."""
    import torch

    from model_core.network.checkpoints.layout import expected_shapes
    from model_core.network.checkpoints.weights import write_json, write_shards

    shapes = expected_shapes(network())

    def numbers(key: str, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(len(key) + sum(key.encode()))
        return torch.empty(shapes[key], dtype=torch.bfloat16).normal_(0, 0.02, generator=generator).to(dtype)

    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        tensors = {key: (shape, dtype, lambda key=key, dtype=dtype: numbers(key, dtype)) for key, shape in shapes.items()}
        write_shards(folder / name, tensors, max_shard_bytes=500_000_000)
        write_json(folder / name / "config.json", network().to_json())
    torch.save({key: numbers(key, torch.bfloat16) for key in shapes}, folder / "model.pt")


def measure(side: str, folder: Path) -> None:
    """One side, in this process; prints a JSON line."""
    import torch

    from model_core.network.checkpoints.hub import load_pretrained
    from model_core.network.model import MolmoAct

    torch.set_num_threads(1)
    before = peak_bytes()
    started = time.perf_counter()
    if side == "peer":
        torch.set_default_dtype(torch.bfloat16)
        model = MolmoAct(network())
        model.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    else:
        model = load_pretrained(folder / side, dtype=torch.bfloat16)
    checksum = sum(float(value.detach().double().abs().mean()) for value in _small_pieces(model))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes() - before, "checksum": round(checksum, 6)}))


def _small_pieces(model):
    for value in model.parameters():
        yield from value.detach().view(-1).split(1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the 9 GB of test checkpoints go (default: a temporary folder, removed)")
    parser.add_argument("--side", choices=("bf16", "fp32", "peer", "write"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "write":
        write(options.work)
        return
    if options.side:
        measure(options.side, options.work)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        command = [sys.executable, __file__, "--work", str(work), "--side"]
        if not (work / "model.pt").is_file():
            subprocess.run([*command, "write"], check=True)
        size = sum(path.stat().st_size for path in (work / "bf16").glob("*.safetensors"))
        rows = {}
        for side in ("bf16", "fp32", "peer"):
            runs = [json.loads(subprocess.run([*command, side], check=True, capture_output=True, text=True).stdout) for _ in range(REPEATS)]
            assert len({run["checksum"] for run in runs}) == 1
            rows[side] = {
                "seconds": sorted(run["seconds"] for run in runs)[REPEATS // 2],
                "peak_bytes": max(run["peak_bytes"] for run in runs),
                "checksum": runs[0]["checksum"],
            }
            rows[side]["peak_to_size"] = rows[side]["peak_bytes"] / size
        shards = len(list((work / "bf16").glob("*.safetensors")))
    assert len({row["checksum"] for row in rows.values()}) == 1, "the sides did not load the same numbers"
    result = {
        "what": "load in bf16 and touch every weight; slower of two processes a side, highest peak",
        "checkpoint_bytes": size,
        "shards": shards,
        "limit": LIMIT,
        "within_limit": all(rows[side]["peak_to_size"] <= LIMIT for side in ("bf16", "fp32")),
        "rows": rows,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, torch on 1 thread, shared machine: times are indicative, memory is exact",
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))
    raise SystemExit(0 if result["within_limit"] else 1)


if __name__ == "__main__":
    main()
