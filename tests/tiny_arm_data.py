"""A small frozen data set with a lesson in it: where the bright square is decides depth, trace and action. Real file formats."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from model_core.network.model import MolmoAct
from model_core.spec.contract import PolicyContract, ReasoningSpec
from model_core.spec.stats import UnnormStats
from model_core.tiny import TinySize, new_tiny_model, tiny_layout
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.compact.vocabulary import closed_words
from tests.fakes import make_embodiment

INSTRUCTIONS = ("go there", "stay here")
SMALL = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "feed_forward": 64, "projector": 48, "stem": (8, 16, 16), "rope": True}


def make_small_contract(*, chunk_length: int = 4, words: tuple[str, ...] = closed_words(INSTRUCTIONS)) -> PolicyContract:
    return PolicyContract(
        embodiment=make_embodiment(size=32),
        stats=UnnormStats(q01=(-1.0, -1.0, -1.0, -1.0), q99=(1.0, 1.0, 1.0, 1.0), mask=(True, True, True, False), count=10),
        reasoning=ReasoningSpec(trace_camera="front"),
        chunk_length=chunk_length,
        execute_horizon=min(4, chunk_length),
        words=words,
    )


def make_small_model(contract: PolicyContract, *, seed: int = 0) -> tuple[MolmoAct, CompactLayout]:
    size = TinySize.of(SMALL)
    layout = tiny_layout(contract, size, INSTRUCTIONS)
    return new_tiny_model(layout, size, seed), layout


def make_samples(count: int, *, seed: int = 0, chunk_length: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    place_N2 = rng.integers(2, 26, (count, 2))
    images = rng.integers(0, 60, (count, 1, 32, 32, 3), dtype=np.uint8)
    for i, (x, y) in enumerate(place_N2):
        images[i, 0, y : y + 5, x : x + 5] = 250
    trace_len_N = 1 + np.arange(count) % 5
    trace = np.full((count, 5, 2), -1, np.int16)
    for i, points in enumerate(trace_len_N):
        trace[i, :points] = np.linspace(place_N2[i] * 8, 128, points)
    toward_N2 = (place_N2 - 14) / 12.0
    action_NA = np.concatenate([toward_N2, np.zeros((count, 1)), np.ones((count, 1))], axis=1)
    return {
        "images_NVHW3": images,
        "proprio_NP": rng.uniform(-1, 1, (count, 4)).astype(np.float32),
        "actions_NKA": np.repeat(action_NA[:, None], chunk_length, axis=1).astype(np.float32),
        "executed_NKA": np.clip(action_NA[:, None] + rng.normal(0, 0.3, (count, chunk_length, 4)), -1, 1).astype(np.float32),
        "depth_codes_NG": ((place_N2.sum(1)[:, None] + np.arange(100)) % 128).astype(np.uint8),
        "trace_N52": trace,
        "trace_len_N": trace_len_N.astype(np.int64),
        "instruction_idx_N": (np.arange(count) % 2).astype(np.int64),
        "task_idx_N": (np.arange(count) % 2).astype(np.int64),
        "episode_idx_N": np.arange(count, dtype=np.int64),
        "frame_idx_N": np.zeros(count, np.int64),
    }


def recorded_rows(count: int, chunk_length: int) -> np.ndarray:
    """How many actions of each sample's chunk were recorded, in a padded data set."""
    number_N = np.arange(count)
    return np.where(number_N % 3 == 0, 1 + number_N // 3 % (chunk_length - 1), chunk_length)


def write_small_frozen(folder: Path, contract: PolicyContract, *, train: int = 48, validation: int = 8, padded: bool = False) -> Path:
    """padded: every third sample is one to three frames before the end of its episode, and says so."""
    (folder / "shards").mkdir(parents=True)
    shards = []
    for name, count, seed in (("train", train, 0), ("validation", validation, 1)):
        samples = make_samples(count, seed=seed, chunk_length=contract.chunk_length)
        if padded:
            samples["is_padded_NK"] = np.arange(contract.chunk_length) >= recorded_rows(count, contract.chunk_length)[:, None]
        half = count // 2
        for part, rows in enumerate((slice(0, half), slice(half, count))):  # two shards a split: joining them is tested too
            path = folder / "shards" / f"{name}-{part:05d}.safetensors"
            save_file({key: np.ascontiguousarray(value[rows]) for key, value in samples.items()}, path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            shards.append({"file": f"shards/{path.name}", "frames": rows.stop - rows.start, "sha256": digest})
    manifest = {"shards": shards, "instructions": list(INSTRUCTIONS), "tasks": ["go", "stay"], "contract_id": contract.contract_id}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "contract.json").write_text(json.dumps(contract.to_json()))
    return folder
