"""How far two answers to one observation are apart, in the contract's units. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Chunk
from model_core.tokenization.trace import to_pixels

_POINTS = 5


def distances(live: Chunk, other: Chunk, contract: PolicyContract) -> dict[str, float]:
    """Measure -> distance of two chunks under one contract.

    action.NAME: mean absolute difference of that dimension over the first actions (those that are executed before the next request; forced
    ones left out). action: the same as a share of each dimension's range, over all of them. depth.equal: share of equal codes. trace: mean
    distance in pixels of the trace's camera, at equal parts of both lines. Only what both have is compared.
    """
    body = contract.embodiment
    first = max(live.committed, other.committed)
    rows = slice(first, first + contract.execute_horizon)
    one_KA, other_KA = live.actions_KA[rows], other.actions_KA[rows]
    length = min(len(one_KA), len(other_KA))
    found: dict[str, float] = {}
    if length:
        apart_A = np.abs(one_KA[:length].astype(np.float64) - other_KA[:length]).mean(axis=0)
        found["action"] = float((apart_A / (body.action.high - body.action.low)).mean())
        found |= {f"action.{dim.name}": float(value) for dim, value in zip(body.action.dims, apart_A, strict=True)}
    if live.depth_codes_G is not None and other.depth_codes_G is not None and live.depth_codes_G.shape == other.depth_codes_G.shape:
        found["depth.equal"] = float((live.depth_codes_G == other.depth_codes_G).mean())
    if live.trace_N2 is not None and other.trace_N2 is not None and len(live.trace_N2) and len(other.trace_N2):
        camera = next((c for c in body.cameras if c.name == contract.reasoning.trace_camera), body.cameras[0])
        lines = [along(to_pixels(points_N2, width=camera.width, height=camera.height)) for points_N2 in (live.trace_N2, other.trace_N2)]
        found["trace"] = float(np.linalg.norm(lines[0] - lines[1], axis=1).mean())
    return found


def units(contract: PolicyContract, depth_unit: str = "m") -> Mapping[str, str]:
    """Measure -> its unit, for people."""
    of_dims = {f"action.{dim.name}": dim.unit for dim in contract.embodiment.action.dims}
    return {"action": "of the range", "depth.equal": "of the codes", "depth": depth_unit, "trace": "px", **of_dims}


def along(points_N2: NDArray[np.float64], count: int = _POINTS) -> NDArray[np.float64]:
    """`count` points at equal distances along a line; a line of one point is that point again and again."""
    along_N = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_N2, axis=0), axis=1))])
    at = np.linspace(0.0, along_N[-1], count)
    return np.stack([np.interp(at, along_N, points_N2[:, axis]) for axis in range(2)], axis=1)
