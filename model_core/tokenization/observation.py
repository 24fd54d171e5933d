"""Observations and actions of a contract as what a model reads and writes: the one transform, for training, serving and replay.

`ContractActions` holds for every language; `PolicyInputs` adds what the compact one reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError
from model_core.spec.types import DecisionRequest, Observation
from model_core.tokenization.action_codec import NUM_BINS, ActionCodec
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.compact.vocabulary import proprio_bins

# Proprioception this far (of its range) past the contract's limits is a calibration matter and is clipped; further is another robot.
_PROPRIO_SLACK = 0.1
# Width of an action bin in the normalised range [-1, 1].
_BIN = 2.0 / (NUM_BINS - 1)


@dataclass(frozen=True, kw_only=True)
class ContractActions:
    """Actions of a contract as bins and back. Shape letters: K steps, D prefix actions, A action dims."""

    contract: PolicyContract

    @cached_property
    def _codec(self) -> ActionCodec:
        return ActionCodec(stats=self.contract.stats)

    def bins(self, actions: NDArray[np.floating]) -> NDArray[np.int64]:
        """Actions (..., A) in the contract's units -> bins 1..256."""
        return self._codec.encode(actions)

    def actions_of(self, bins: NDArray[np.integer]) -> NDArray[np.float32]:
        """Bins 1..256 (..., A) -> actions in the contract's units: the inverse of `bins`, within half a bin."""
        return self._codec.decode(bins)

    def committed_bins(self, request: DecisionRequest) -> NDArray[np.int64] | None:
        """Bins (D, A) of the rows that a request commits; None where there are none. Raises as `prefix_bins`."""
        if request.committed_DA is None:
            return None
        last = None if request.previous is None else request.previous.reasoning
        return self.prefix_bins(request.committed_DA, None if last is None else last.bins_KA[max(0, request.consumed) :])

    def prefix_bins(self, prefix_DA: NDArray[np.float32], predicted_KA: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """Prefix actions in the contract's units -> bins. predicted_KA: bins of the policy's own answer that they were taken from.

        Raises `ContractError` for actions that the policy could not have predicted.
        """
        prefix_DA = np.asarray(prefix_DA)
        most, dims = self.contract.max_prefix_rows, len(self.contract.embodiment.action)
        if prefix_DA.ndim != 2 or prefix_DA.shape[1] != dims or len(prefix_DA) > most:
            raise ContractError(f"prefix actions: expected at most {most} actions of {dims} numbers, got shape {prefix_DA.shape}")
        if not np.isfinite(prefix_DA).all():
            raise ContractError("prefix actions hold NaN or inf")
        fits = predicted_KA is not None and predicted_KA.shape[1:] == (dims,)
        bins_DA = self._codec.recall(prefix_DA, predicted_KA if fits else None)
        stats = self.contract.stats
        two_bins_A = stats.unnormalize(np.full(dims, 2.0 * _BIN)) - stats.unnormalize(np.zeros(dims))
        off_DA = np.abs(self._codec.decode(bins_DA) - prefix_DA) - np.abs(two_bins_A)
        if off_DA.size and float(off_DA.max()) > 1e-6:
            step, dim = np.unravel_index(int(off_DA.argmax()), off_DA.shape)
            raise ContractError(
                f"prefix action {step}: {self.contract.embodiment.action.dims[int(dim)].name} = {prefix_DA[step, dim]:.4g} is outside what "
                "this policy predicts; send actions of its own answers"
            )
        return bins_DA


@dataclass(frozen=True, kw_only=True)
class PolicyInputs:
    """How a policy of this layout and contract reads observations.

    Shape letters: V views, H W pixels, W words, I instructions, P proprio dims.
    """

    layout: CompactLayout
    contract: PolicyContract

    def images(self, observation: Observation) -> NDArray[np.uint8]:
        """The views (V, H, W, 3), in the contract's camera order."""
        return np.stack([observation.images[camera.name] for camera in self.contract.embodiment.cameras])

    def words(self, instruction: str) -> NDArray[np.int64]:
        """Word ids (W,), padded. Raises `GrammarError` for a word that the policy does not know."""
        return self.layout.instruction_ids(instruction)

    def word_table(self, instructions: Iterable[str]) -> NDArray[np.int64]:
        """Word ids (I, W): row i is instruction i."""
        return self.layout.instruction_table(instructions)

    def proprio_bins(self, proprio: NDArray[np.floating]) -> NDArray[np.int64]:
        """Proprioception (..., P) in the contract's units -> bins 0..255."""
        proprio_spec = self.contract.embodiment.proprio
        return proprio_bins(proprio, proprio_spec.low, proprio_spec.high)


def check_observation(observation: Observation, contract: PolicyContract) -> None:
    """Raise `ContractError` naming the first way in which `observation` is not what the contract promises."""
    body = contract.embodiment
    wanted = [camera.name for camera in body.cameras]
    if sorted(observation.images) != sorted(wanted):
        raise ContractError(f"cameras: expected {wanted}, got {sorted(observation.images)}")
    for camera in body.cameras:
        image = observation.images[camera.name]
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            raise ContractError(
                f"camera {camera.name!r}: expected {camera.height}x{camera.width}x3 uint8, "
                f"got {'x'.join(map(str, image.shape))} {image.dtype}; send the raw frame"
            )
    proprio_P = np.asarray(observation.proprio_P)
    if proprio_P.shape != (len(body.proprio),):
        raise ContractError(f"proprio: expected {len(body.proprio)} numbers, got shape {proprio_P.shape}")
    if not np.isfinite(proprio_P).all():
        raise ContractError("proprio holds NaN or inf; check the sensor")
    slack_P = _PROPRIO_SLACK * (body.proprio.high - body.proprio.low)
    outside_P = (proprio_P < body.proprio.low - slack_P) | (proprio_P > body.proprio.high + slack_P)
    if outside_P.any():
        dim = body.proprio.dims[int(np.flatnonzero(outside_P)[0])]
        raise ContractError(
            f"proprio {dim.name!r} is far outside {dim.low}..{dim.high} {dim.unit}: this is not the state that the policy knows"
        )
    if len(observation.instruction) > contract.max_instruction_chars:
        raise ContractError(f"instruction: at most {contract.max_instruction_chars} characters, got {len(observation.instruction)}")
    if observation.steering is not None and not contract.reasoning.steering:
        raise ContractError("this policy was not trained to be steered; send no trace")
