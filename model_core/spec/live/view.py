"""What a cell is doing now, as one file that is always whole: written over by the cell, read by any number of readers.

A reader that comes late sees the newest view with the last rows and events; nothing waits for a reader. Times are seconds since 1970 by the
clock of the cell's computer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from model_core.spec.errors import WireError

FORMAT = 1
VIEW_FILE = "view.msgpack"
CELLS = "cells"  # the folder of a home that holds one for each cell
MAX_VIEW_BYTES = 64 * 2**20
KEPT_ROWS, KEPT_EVENTS, KEPT_OUTCOMES = 200, 40, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDim:
    """One action dimension with the range that the cell's body allows."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCamera:
    """One camera; width, height in pixels."""

    name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBody:
    """What does not change during an episode. trace_camera: on which traces are drawn and predicted; trace_range: of its coordinates.

    depth_grid: rows and columns of the depth codes, 0..depth_codes - 1. codebook_digest: of the codec that decodes them.
    """

    cameras: tuple[LiveCamera, ...] = ()
    actions: tuple[LiveDim, ...] = ()
    control_hz: float = 0.0
    trace_camera: str = ""
    trace_range: int = 255
    trace_points: int = 5
    depth_grid: tuple[int, int] = (10, 10)
    depth_codes: int = 128
    codebook_digest: str = ""
    takes_steering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSteering:
    """A drawn path that a request carried. points: pixels of `camera`. until: when it ends by itself."""

    revision: int
    author: str
    camera: str
    points: tuple[tuple[float, float], ...]
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDecision:
    """One request and its answer. number: counts the decisions of this process, and names its pictures. outcome, code, reason: as the
    audit has them. taken_at: when the pictures were taken. latency_ms: from asking to the answer; stages: of the service, in ms.

    trace: points (x, y) in 0..trace_range; depth: one code a cell; actions: (K, A) as the cell installed them (as they came where it did
    not), from first_row on. applied_revision: of the steering or edit that the service applied.
    """

    number: int
    seq: int
    step: int
    outcome: str
    taken_at: float
    latency_ms: float
    code: str = ""
    reason: str = ""
    level: str = ""
    flags: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict[str, float])
    drafted: int = 0
    accepted: int = 0
    trace: tuple[tuple[int, int], ...] = ()
    depth: tuple[int, ...] = ()
    actions: tuple[tuple[float, ...], ...] = ()
    first_row: int = 0
    applied_revision: int = 0
    steering: LiveSteering | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRow:
    """One command as the driver got it. number: counts the commands of this process. clipped: dimensions that the envelope brought back."""

    number: int
    step: int
    mode: str
    action: tuple[float, ...]
    clipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """Anything else that the cell told its audit."""

    number: int
    at: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOutcome:
    """What became of a person's order: "applied" (in force from the next control step) or "refused"."""

    order_id: str
    kind: str
    author: str
    outcome: str
    reason: str
    revision: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """All of it. mode: RUN, STRETCH, HOLD or SAFE_STOP, and why. running: an episode is under way; ended: the process closed its view.

    episode: counts the episodes of this process. pictures_of: number of the decision whose pictures are in this file; pictures: camera ->
    RGB bytes, rows of width * 3.
    """

    format: int
    cell: str
    written_at: float
    body: LiveBody = field(default_factory=LiveBody)
    task: str = ""
    instruction: str = ""
    episode: int = 0
    episode_id: str = ""
    strategy: str = ""
    model_version: str = ""
    contract_id: str = ""
    running: bool = False
    ended: bool = False
    step: int = 0
    mode: str = ""
    reason: str = ""
    mode_since: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    decision: LiveDecision | None = None
    rows: tuple[LiveRow, ...] = ()
    events: tuple[LiveEvent, ...] = ()
    outcomes: tuple[OrderOutcome, ...] = ()
    pictures_of: int = 0
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


def encode_view(view: CellView) -> bytes:
    """The bytes of the file."""
    return msgspec.msgpack.encode(view)


def decode_view(data: bytes) -> CellView:
    """Read a view. Raises WireError for bytes that are none, or of another format."""
    if len(data) > MAX_VIEW_BYTES:
        raise WireError(f"a view has at most {MAX_VIEW_BYTES} bytes, got {len(data)}")
    try:
        view = msgspec.msgpack.decode(data, type=CellView)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"this is no view of a cell: {error}") from error
    if view.format != FORMAT:
        raise WireError(f"a view of format {view.format}, expected {FORMAT}. Fix: update the older of cell and console")
    sizes = {one.name: one.width * one.height * 3 for one in view.body.cameras}
    wrong = [name for name, pixels in view.pictures.items() if len(pixels) != sizes.get(name)]
    if wrong:
        raise WireError(f"the picture of {wrong[0]!r} has {len(view.pictures[wrong[0]])} bytes, expected {sizes.get(wrong[0])}")
    return view
