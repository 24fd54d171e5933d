"""A checkpoint becomes a Bento: weights, contract, golden probes, our code and a lock of its libraries, in one folder.

The build runs in a process of its own with its own BentoML home, and needs no network. Equal checkpoints and equal
code give equal files: what BentoML writes about the moment of building is replaced by a constant.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from components.config.recipe import PackageConfig
from components.config.records import Progress, Silent
from components.release.checkpoint_copy import copy_checkpoint
from components.release.novelty_reference import write_reference
from model_core.bundle import CONTRACT, MANIFEST, file_digests
from model_core.spec.contract import GoldenProbe, PolicyContract, digest_of
from model_core.spec.errors import CheckpointError, JobError
from model_core.spec.execution.probing import golden_probe
from model_core.spec.protocol.wire import Chunk, Observe, encode_message
from model_core.spec.types import Observation, Policy

PACKED_ROOMS = ("model_core", "serving")
SERVICE = "serving.gateway.service:PolicyService"
LIBRARIES = (
    "bentoml",
    "cryptography",
    "msgpack",
    "msgspec",
    "numpy",
    "pillow",
    "prometheus_client",
    "safetensors",
    "starlette",
    "tiktoken",
    "tokenizers",
    "torch",
    "uvicorn",
    "websockets",
)
# A release date of the tar format would do as well: the point is that it never changes.
BUILD_TIME = "2000-01-01T00:00:00+00:00"


def package(
    cfg: PackageConfig,
    checkpoint: Path,
    model_version: str,
    out: Path,
    progress: Progress | None = None,
    *,
    frozen: Path | None = None,
) -> dict[str, Any]:
    """Build the Bento at out/bento and return its record {bento, tag, digest, contract_id, model_version, probes, files}.

    frozen: a frozen data set; its validation frames become the golden probes (without one: seeded noise of the
    contract's shape). `bento` in the record is relative to `out`. Of a checkpoint of several embodiments only the part of `cfg.embodiment`
    is packed. Raises CheckpointError, also where one of several must be named, or JobError with the builder's last lines. Started again
    over its own unfinished work, it starts from the beginning.
    """
    tell = progress or Silent()
    shutil.rmtree(out / "bento", ignore_errors=True)
    context = out / "scratch" / "context"
    shutil.rmtree(out / "scratch", ignore_errors=True)
    context.mkdir(parents=True)
    tell.update(0, 3, "recording golden probes")
    contract_id, probes = write_bundle(cfg, checkpoint, model_version, context / "bundle", frozen)
    tell.update(1, 3, "building the Bento")
    _write_code(context)
    digest = digest_of(file_digests(context))
    version = digest[:16]
    _write_bentofile(context, cfg.name, model_version, contract_id)
    _build(context, out / "bento", home=out / "scratch" / "bentoml", name=cfg.name, version=version)
    tell.update(3, 3, f"{cfg.name}:{version}")
    return {
        "bento": "bento",
        "tag": f"{cfg.name}:{version}",
        "digest": digest,
        "contract_id": contract_id,
        "model_version": model_version,
        "probes": probes,
        "files": sum(1 for p in (out / "bento").rglob("*") if p.is_file()),
    }


def probe_observations(contract: PolicyContract, count: int, frozen: Path | None) -> list[Observation]:
    """Requests for a packed model: frames of `frozen`'s validation split, or seeded noise in the contract's shapes."""
    if frozen is not None:
        from components.data.frozen_dataset import sample_observations

        if recorded := sample_observations(frozen, count, contract):
            return recorded
    rng = np.random.default_rng(0)
    body = contract.embodiment
    words = contract.words or ("do nothing",)
    return [
        Observation(
            images={c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in body.cameras},
            proprio_P=np.array([rng.uniform(d.low, d.high) for d in body.proprio.dims], np.float32),
            instruction=words[i % len(words)],
        )
        for i in range(count)
    ]


def write_bundle(cfg: PackageConfig, checkpoint: Path, model_version: str, bundle: Path, frozen: Path | None) -> tuple[str, int]:
    """Write what is served: the checkpoint, its contract with golden probes, what novelty is measured by, and the manifest with the digest
    of every file.

    Returns (contract id, golden probes). frozen: see `package`. Raises `CheckpointError`.
    """
    from model_core.policy import load_policy

    frozen = copy_checkpoint(checkpoint, cfg.embodiment, bundle / "checkpoint", frozen)
    policy = load_policy(bundle / "checkpoint", model_version=model_version, reasoning=cfg.reasoning)
    observations = probe_observations(policy.contract, cfg.golden_probes, frozen)
    write_reference(frozen, policy.contract, bundle)
    golden = record_probes(policy, policy.contract, model_version, observations, bundle / "probes")
    contract = replace(policy.contract, golden_probes=golden)
    (bundle / CONTRACT).write_text(json.dumps(contract.to_json(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    manifest = {
        "model_version": model_version,
        "contract_id": contract.contract_id,
        "reasoning": cfg.reasoning,
        "torch_threads": 1,
        "package": {name: value for name, value in asdict(cfg).items() if name != "embodiment" or value},
        "files": file_digests(bundle),
    }
    (bundle / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return contract.contract_id, len(golden)


def record_probes(
    policy: Policy, contract: PolicyContract, model_version: str, observations: Sequence[Observation], folder: Path
) -> tuple[GoldenProbe, ...]:
    """Send each request and keep the answers, as `serving` replays them. Returns those that were answered with a chunk.

    A request that the model refuses is not kept: what counts is that the same model gives the same actions. The answers name
    the contract without its probes (`policy_id`), since they become part of it.
    """
    from model_core.spec.execution.guard import Guarded

    guarded = Guarded(policy=policy, contract=contract)
    folder.mkdir(parents=True)
    golden: list[GoldenProbe] = []
    for observation in observations:
        decision = guarded.decide(observation)
        if decision.chunk is None:
            continue
        kept = len(golden)
        question = Observe(session_id="", epoch=0, seq=kept, episode_id="probe", step=0, deadline_ms=60_000.0, observation=observation)
        answer = Chunk(
            session_id="",
            epoch=0,
            seq=kept,
            chunk_id=f"probe-{kept:02d}",
            contract_id=contract.policy_id,
            model_version=model_version,
            actions_KA=np.ascontiguousarray(decision.chunk.actions_KA, np.float32),
            control_hz=decision.chunk.control_hz,
            expires_ms=0.0,
        )
        (folder / f"{kept:02d}.observe").write_bytes(encode_message(question))
        (folder / f"{kept:02d}.chunk").write_bytes(encode_message(answer))
        golden.append(golden_probe(f"{kept:02d}", observation, answer.actions_KA, contract.embodiment.action))
    if observations and not golden:
        raise CheckpointError(f"the model refused all {len(observations)} golden probes; a model that never answers is not packaged")
    return tuple(golden)


def _write_code(context: Path) -> None:
    for room in PACKED_ROOMS:
        # Found, not imported: what is packed does not run in this process.
        spec = importlib.util.find_spec(room)
        if spec is None or not spec.submodule_search_locations:
            raise JobError(f"package {room!r} is not installed here, so it cannot be packed; run `make setup`")
        shutil.copytree(next(iter(spec.submodule_search_locations)), context / room, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    (context / "requirements.lock").write_text("\n".join(locked(LIBRARIES)) + "\n")


def locked(names: Iterable[str]) -> list[str]:
    """`name==version` of `names` and everything they need, as installed here: what was tested is what is packed."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            dist = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = f"{name}=={dist.version.partition('+')[0]}"  # "+cpu" names a build, which no package index has
        needs = [Requirement(line) for line in dist.requires or ()]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return [found[name] for name in sorted(found)]


def _write_bentofile(context: Path, name: str, model_version: str, contract_id: str) -> None:
    document = {
        "service": SERVICE,
        "name": name,
        "labels": {"model_version": model_version, "contract_id": contract_id},
        "include": ["bundle/**", *(f"{room}/**" for room in PACKED_ROOMS), "requirements.lock"],
        # The packages themselves and not "requirements_txt": bentoml reads no file whose path has a hidden folder in it, such as ours.
        "python": {"packages": locked(LIBRARIES), "lock_packages": False},
        # the version whose packages `locked` lists
        "docker": {"distro": "debian", "python_version": f"{sys.version_info.major}.{sys.version_info.minor}"},
    }
    (context / "bentofile.yaml").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")  # JSON is YAML


def _build(context: Path, target: Path, *, home: Path, name: str, version: str) -> None:
    home.mkdir(parents=True)
    settings = [f"BENTOML_HOME={home.resolve()}", "BENTOML_DO_NOT_TRACK=True", "PYTHONDONTWRITEBYTECODE=1"]
    command = ["env", *settings, sys.executable, "-m", "bentoml", "build", "-f", "bentofile.yaml", "--version", version, "-o", "tag", "."]
    done = subprocess.run(command, cwd=context, capture_output=True, text=True, timeout=300, check=False)
    built = home / "bentos" / name / version
    if done.returncode != 0 or not built.is_dir():
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise JobError(f"`bentoml build` ended with code {done.returncode}; its last lines:\n{last}")
    _fix_creation_time(built)
    shutil.move(built, target)


def _fix_creation_time(bento: Path) -> None:
    path = bento / "bento.yaml"
    path.write_text(re.sub(r"^creation_time: .*$", f"creation_time: '{BUILD_TIME}'", path.read_text(), flags=re.MULTILINE))
