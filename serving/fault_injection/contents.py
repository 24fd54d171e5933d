"""A correct answer, and well-formed answers that are wrong, as a broken model or an unannounced new version would send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec, PolicyContract, ReasoningSpec
from model_core.spec.protocol.wire import Chunk, Observe
from model_core.spec.stats import UnnormStats
from model_core.spec.types import DEPTH_CELLS

DENORMAL = np.float32(1e-42)


def contract_for(body: EmbodimentSpec, *, chunk_length: int = 8, execute_horizon: int = 4) -> PolicyContract:
    """A contract that fits any embodiment, so that any client of the protocol can be tested."""
    low, high = body.action.low.tolist(), body.action.high.tolist()
    return PolicyContract(
        embodiment=body,
        stats=UnnormStats(q01=tuple(low), q99=tuple(high), mask=(True,) * len(low), count=1),
        reasoning=ReasoningSpec(trace_camera=body.cameras[0].name),
        chunk_length=chunk_length,
        execute_horizon=min(execute_horizon, chunk_length),
    )


def stationary_actions(contract: PolicyContract, observe: Observe) -> NDArray[np.float32]:
    """(K, A) actions that hardly move the robot: zeros for deltas and velocities, the measured pose for absolute targets."""
    body = contract.embodiment
    row_A = np.clip(np.zeros(len(body.action), np.float32), body.action.low, body.action.high)
    if body.action.mode == "absolute":
        measured = dict(zip((dim.name for dim in body.proprio.dims), observe.observation.proprio_P, strict=False))
        middle_A = (body.action.low + body.action.high) / 2
        row_A = np.array([measured.get(dim.name, mid) for dim, mid in zip(body.action.dims, middle_A, strict=True)], np.float32)
    return np.repeat(row_A[None], contract.chunk_length, axis=0)


def chunk_for(observe: Observe, contract: PolicyContract, model_version: str, actions_KA: NDArray[np.float32]) -> Chunk:
    """The answer that a correct service would give."""
    rate = contract.embodiment.control_hz
    return Chunk(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        chunk_id=f"{observe.session_id[:8]}-{observe.epoch}-{observe.seq}",
        contract_id=contract.contract_id,
        model_version=model_version,
        actions_KA=np.ascontiguousarray(actions_KA, np.float32),
        control_hz=rate,
        expires_ms=1e3 * len(actions_KA) / rate,
        depth_codes_G=np.zeros(DEPTH_CELLS, np.int64),
        trace_N2=np.array([[10, 10], [20, 20]], np.int64),
    )


def falsify(name: str, chunk: Chunk, contract: PolicyContract, rng: np.random.Generator) -> Chunk:
    """`chunk` with the wrong content `name` (a key of `catalog.MEANING`)."""
    return _FALSE[name](chunk, contract, rng)


def _with(change: Callable[[NDArray[np.float32], PolicyContract], NDArray[np.float32]]) -> Callable[..., Chunk]:
    def falsified(chunk: Chunk, contract: PolicyContract, _: np.random.Generator) -> Chunk:
        return replace(chunk, actions_KA=np.ascontiguousarray(change(chunk.actions_KA.copy(), contract), np.float32))

    return falsified


def _one(value: float) -> Callable[..., Chunk]:
    def falsified(chunk: Chunk, _: PolicyContract, rng: np.random.Generator) -> Chunk:
        actions_KA = chunk.actions_KA.copy()
        actions_KA[int(rng.integers(len(actions_KA))), int(rng.integers(actions_KA.shape[1]))] = value
        return replace(chunk, actions_KA=actions_KA)

    return falsified


def _outside(chunk: Chunk, contract: PolicyContract, rng: np.random.Generator) -> Chunk:
    spec, actions_KA = contract.embodiment.action, chunk.actions_KA.copy()
    place = int(rng.integers(actions_KA.shape[1]))
    actions_KA[int(rng.integers(len(actions_KA))), place] = spec.high[place] + (spec.high[place] - spec.low[place]) / 3
    return replace(chunk, actions_KA=actions_KA)


def _field(**changes: object) -> Callable[..., Chunk]:
    return lambda chunk, *_: replace(chunk, **changes)


_FALSE: dict[str, Callable[[Chunk, PolicyContract, np.random.Generator], Chunk]] = {
    "nan": _one(np.nan),
    "inf": _one(np.inf),
    "1e9": _one(1e9),
    "denormal": _with(lambda a, _: np.full_like(a, DENORMAL)),
    "outside": _outside,
    "empty": _with(lambda a, _: a[:0]),
    "short": _with(lambda a, _: a[: max(len(a) // 2, 1)]),
    "long": _with(lambda a, _: np.concatenate([a, a])),
    "narrow": _with(lambda a, _: a[:, :-1]),
    "wide": _with(lambda a, _: np.concatenate([a, a[:, :1]], axis=1)),
    "jump": _with(lambda a, contract: np.broadcast_to(contract.embodiment.action.high, a.shape)),
    "expired": _field(expires_ms=0.0),
    "wrong-epoch": lambda chunk, *_: replace(chunk, epoch=max(chunk.epoch - 1, 0)),
    "wrong-seq": lambda chunk, *_: replace(chunk, seq=max(chunk.seq - 1, 0)),
    "next-seq": lambda chunk, *_: replace(chunk, seq=chunk.seq + 1),
    "wrong-session": _field(session_id="0" * 32),
    "version": lambda chunk, *_: replace(chunk, model_version=f"{chunk.model_version}+next"),
    "contract": _field(contract_id="0" * 16),
    "other-rate": lambda chunk, *_: replace(chunk, control_hz=chunk.control_hz / 3),
    "no-depth": _field(depth_codes_G=None, trace_N2=None),
    "trace-outside": _field(trace_N2=np.array([[-5, 10], [999, 20]], np.int64)),
}
