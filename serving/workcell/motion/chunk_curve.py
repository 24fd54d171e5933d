"""One chunk as a curve over its rows, so that it can be executed slower than real time and joined without a kick.

    position      0     1     2     3        row k is what lies between positions k and k + 1
    rows          | r0  | r1  | r2  |        a pose is reached at the end of its row, a rate holds during it

A control step moves from position p to q (q - p = 1 in real time, less while stretching). A pose becomes the point at q;
a delta or velocity becomes its integral from p to q, so slowing down never changes where the motion ends. The gripper is a
switch: it is never scaled and never blended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.execution.holding import POSES
from model_core.spec.protocol.wire import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKey:
    """What a chunk must belong to."""

    session_id: str
    epoch: int
    contract_id: str
    model_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRef(SessionKey):
    """Which answer a row belongs to, and until when (monotonic seconds) it may be executed."""

    chunk_id: str
    seq: int
    expires_at_s: float
    revision: int = 0

    @staticmethod
    def of(chunk: Chunk, expires_at_s: float, revision: int = 0) -> ChunkRef:
        """What the rows of `chunk` are known by."""
        return ChunkRef(
            chunk_id=chunk.chunk_id,
            session_id=chunk.session_id,
            epoch=chunk.epoch,
            seq=chunk.seq,
            contract_id=chunk.contract_id,
            model_version=chunk.model_version,
            expires_at_s=expires_at_s,
            revision=revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Rows that are being executed. rows_KA: in robot units, after seam and clipping; raw_KA: as answered.

    start_A: where position 0 lies (only a stretched first row of a pose needs it). is_pose_A, is_switch_A: bool (A,).
    """

    ref: ChunkRef
    rows_KA: NDArray[np.float32]
    raw_KA: NDArray[np.float32]
    start_A: NDArray[np.float32]
    is_pose_A: NDArray[np.bool_]
    is_switch_A: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows_KA)

    def row_at(self, end: float) -> int:
        """The row in which a step that ends at position `end` ends."""
        return min(max(math.ceil(end) - 1, 0), len(self) - 1)

    def command_A(self, begin: float, end: float) -> NDArray[np.float32]:
        """The action of one control step from position `begin` to `end` (at most one row further)."""
        row = self.row_at(end)
        if begin == row and end == row + 1:  # the usual case, bit for bit
            return self.rows_KA[row].copy()
        rate_A = self.rows_KA[row] * (end - max(begin, row))
        if begin < row:
            rate_A = rate_A + self.rows_KA[row - 1] * (row - begin)
        return np.where(self.is_switch_A, self.rows_KA[row], np.where(self.is_pose_A, self.pose_A(end), rate_A)).astype(np.float32)

    def pose_A(self, at: float) -> NDArray[np.float32]:
        """Where the pose dimensions are at a position (other dimensions: meaningless)."""
        row = self.row_at(at)
        before_A = self.rows_KA[row - 1] if row > 0 else self.start_A
        return (before_A + (at - row) * (self.rows_KA[row] - before_A)).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Motion:
    """What the robot was commanded last, as a place and as a rate per row. (A,), both; rate is 0 at standstill."""

    pose_A: NDArray[np.float32]
    rate_A: NDArray[np.float32]


def joined(curve: Curve, at: float, motion: Motion, rows: int, rate_rows: int) -> Curve:
    """`curve` with its rows from position `at` on bent so that they begin with the place and the rate of `motion`.

    The bend of a pose fades over `rows` rows (a cubic Hermite whose value and slope are 0 at its end): place and velocity are
    continuous at both ends. Of a delta or velocity only the rate can be joined: it is a mean of old and new, which therefore
    never leaves the range of the two, over `rate_rows` rows (fewer: a rate that is held back is motion that is lost).
    """
    first = math.floor(at)
    bent_KA = curve.rows_KA.astype(np.float64)
    place_gap_A = motion.pose_A - curve.pose_A(at)
    slope_A = curve.pose_A(min(at + 1.0, float(len(curve)))) - curve.pose_A(at)
    slope_gap_A = motion.rate_A - slope_A
    for row in range(first, min(first + max(rows, rate_rows), len(curve))):
        t = min((row + 1 - at) / rows, 1.0)
        fade, slope = _fade(t), t**3 - 2 * t**2 + t
        share = _fade(min((row + 1 - at) / (rate_rows + 1), 1.0))
        bend_A = np.where(curve.is_pose_A, fade * place_gap_A + slope * rows * slope_gap_A, share * (motion.rate_A - bent_KA[row]))
        bent_KA[row] += np.where(curve.is_switch_A, 0.0, bend_A)
    return replace(curve, rows_KA=bent_KA.astype(np.float32))


def _fade(t: float) -> float:
    return 2 * t**3 - 3 * t**2 + 1


def switches(names: tuple[str, ...], gripper: str) -> NDArray[np.bool_]:
    """Which action dimensions are the gripper."""
    return np.array([name == gripper for name in names])


def poses(modes: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which action dimensions name a place."""
    return np.array([mode in POSES for mode in modes])
