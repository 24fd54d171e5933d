"""The three releases of the demonstration: a policy, the same policy as a second version, and one that is worse on purpose.

Version 2 has the weights of version 1, so it is as good by construction. Version 3 has seeded noise added to the weights of the output
head: it still acts by what it sees, and fails more often. How often is not told to anybody: it comes out of the cells' own episodes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.adapters.signing.folder_signature import Signer
from components.config.recipe import PackageConfig
from components.release.bundle import PackedPolicy, find_packed
from components.release.fleet.create import Facts, Made, create_release
from components.release.package import write_bundle
from model_core.bundle import PACK_AGAIN
from model_core.spec.errors import CheckpointError
from model_core.spec.fleet.release import Override

WEIGHTS, HEAD = "model.safetensors", "lm_head.weight"
NAME = "fleet-demo"
PERSON = "the fleet demonstration"
_WHY_NOISE = "to show that a worse version is stopped: noise of {noise:g} standard deviations was added to the output head"
_WHY_UNJUDGED = "to show a rollout: no verdict of the gate on these weights is in this home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The releases in the order in which they are rolled out."""

    first: Made
    second: Made
    worse: Made

    def named(self) -> Mapping[str, int]:
        """Digest -> 1, 2 or 3."""
        return {made.release.digest: number for number, made in enumerate((self.first, self.second, self.worse), start=1)}


def make_versions(packed: PackedPolicy, facts: Facts, signer: Signer, to: Path, noise: float) -> Versions:
    """Write the three releases below `to`. facts: of `packed`. noise: in standard deviations of the head's weights.

    Raises `CheckpointError` for a policy that is not packed, or whose network has no head of its own.
    """
    if packed.bundle is None:
        raise CheckpointError(f"{packed.checkpoint} is a checkpoint and no bundle; {PACK_AGAIN}")
    cfg = PackageConfig(**dict[str, Any](packed.manifest.get("package", {})))
    noisy = add_noise(packed.checkpoint, to / "noisy-checkpoint", noise)
    for number, checkpoint in ((2, packed.checkpoint), (3, noisy)):
        shutil.rmtree(to / f"bundle-{number}", ignore_errors=True)
        (to / f"bundle-{number}").mkdir(parents=True)
        write_bundle(cfg, checkpoint, f"{NAME}/{number}", to / f"bundle-{number}", None)
    judged = facts if facts.verdict is not None and facts.verdict.promote else replace(facts, override=_by_name(_WHY_UNJUDGED))
    unjudged = replace(facts, verdict=None, evaluated=frozenset(), override=_by_name(_WHY_NOISE.format(noise=noise)))
    return Versions(
        first=create_release(packed, to, signer, judged),
        second=create_release(find_packed(to / "bundle-2"), to, signer, judged),
        worse=create_release(find_packed(to / "bundle-3"), to, signer, unjudged),
    )


def add_noise(checkpoint: Path, to: Path, noise: float, seed: int = 0) -> Path:
    """A copy of a checkpoint whose output head has normal noise added, of `noise` times the standard deviation of its weights."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(checkpoint, to)
    with safe_open(to / WEIGHTS, framework="numpy") as opened:
        written_with, state = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if HEAD not in state:
        raise CheckpointError(f"{checkpoint / WEIGHTS} has no {HEAD}. Fix: name a policy of our own layout, such as champion")
    head_XD = state[HEAD]
    drawn_XD = np.random.default_rng(seed).standard_normal(head_XD.shape)
    state[HEAD] = (head_XD + noise * head_XD.std() * drawn_XD).astype(head_XD.dtype)
    save_file(state, to / WEIGHTS, metadata=written_with)
    return to


def _by_name(reason: str) -> Override:
    return Override(name=PERSON, reason=reason)
