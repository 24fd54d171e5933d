"""An operator's drawing or edit, checked and converted to the model's terms; refused with a reason, or applied and recorded.

SteeringInput (pixels of a named image) --> right image, right size, inside, fresh, newest --> Trace of 0..255
Edit (depth codes, trace)               --> allowed by the contract, newest                --> DepthTokens, Trace
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import SpecError
from model_core.spec.protocol.wire import Edit, SteeringInput
from model_core.spec.types import TRACE_MAX_POINTS, DepthTokens, Refusal, RefusalCode, Trace
from model_core.tokenization.trace import resampled, to_range
from serving.gateway.inference.pending_request import Guidance

MAX_DRAWN_POINTS = 1024
MAX_AUTHORS = 16


class SteeringRefused(Exception):  # noqa: N818
    """A drawing or edit that is refused, with the `Refusal`."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(code=code, reason=reason)


@dataclass(slots=True)
class Revisions:
    """The newest input of one kind in one session. Revisions increase over all authors together.

    The same revision may come again with every observation, from its author and unchanged; a lower one, and an equal one
    of another author or with other content, is refused.
    """

    what: str
    revision: int = 0
    author: str = ""
    content: bytes = b""
    until: float = 0.0
    by_author: dict[str, int] = field(default_factory=dict)

    def check(self, revision: int, author: str, content: bytes) -> None:
        """Raise `SteeringRefused` unless this input is the newest one. Nothing is recorded yet."""
        if revision < 1:
            raise SteeringRefused(RefusalCode.CONTRACT, f"{self.what} needs a revision of at least 1, got {revision}")
        if revision == self.revision and author == self.author:
            if content != self.content:
                raise SteeringRefused(
                    RefusalCode.CONTRACT, f"{self.what} revision {revision} of {author!r} came before with other content; raise it"
                )
            return
        if revision <= max(self.revision, self.by_author.get(author, 0)):
            text = f"{self.what} revision {revision} of {author!r} is not newer than revision {self.revision} of {self.author!r}"
            raise SteeringRefused(RefusalCode.STALE_OBS, text)
        if author not in self.by_author and len(self.by_author) >= MAX_AUTHORS:
            raise SteeringRefused(RefusalCode.TOO_LARGE, f"{self.what} has {MAX_AUTHORS} authors already, the most that a session takes")

    def accept(self, revision: int, author: str, content: bytes, until: float) -> None:
        """Record an input that was checked. until: when it expires; the same input sent again may shorten that, never extend it."""
        self.until = until if revision != self.revision else min(self.until, until)
        self.revision, self.author, self.content = revision, author, content
        self.by_author[author] = revision


class SessionSteering:
    """The steering and editing of one session. Not thread-safe. clock: monotonic seconds."""

    def __init__(self, contract: PolicyContract, clock: Callable[[], float]) -> None:
        self._contract, self._clock = contract, clock
        self._steering, self._edits = Revisions("steering"), Revisions("an edit")

    def reset(self) -> None:
        """A new episode: the drawings of the old one are void, revisions start at 1 again."""
        self._steering, self._edits = Revisions("steering"), Revisions("an edit")

    def take(self, steering: SteeringInput | None, edit: Edit | None, sizes: dict[str, tuple[int, int]]) -> Guidance:
        """Check what came with an observation whose cameras have `sizes` (width, height). Raises `SteeringRefused`."""
        if steering is None and edit is None:
            return Guidance()
        if not self._contract.reasoning.steering:
            raise SteeringRefused(
                RefusalCode.CONTRACT, "this policy takes neither steering nor edits: its contract says reasoning.steering false"
            )
        if steering is not None and edit is not None:
            raise SteeringRefused(RefusalCode.CONTRACT, "steering and an edit in one request contradict each other; send one of them")
        return self._steered(steering, sizes) if steering is not None else self._edited(edit)

    def _steered(self, drawn: SteeringInput, sizes: dict[str, tuple[int, int]]) -> Guidance:
        trace = steering_trace(drawn, self._contract.reasoning.trace_camera, sizes)
        content = drawn.image.encode() + np.ascontiguousarray(drawn.points_N2, np.float32).tobytes()
        self._steering.check(drawn.revision, drawn.author, content)
        now = self._clock()
        # Some cells send the remaining lifetime with each observation, others the whole lifetime: the earlier end counts.
        self._steering.accept(drawn.revision, drawn.author, content, now + drawn.ttl_ms / 1e3)
        if drawn.ttl_ms <= 0 or now > self._steering.until:
            return Guidance(flags=("steering:expired",))
        return Guidance(steering=trace, flags=(f"steering:rev{drawn.revision}",), applied_revision=drawn.revision)

    def _edited(self, edit: Edit | None) -> Guidance:
        assert edit is not None  # one of the two is there
        if edit.depth_codes_G is None and edit.trace_N2 is None:
            raise SteeringRefused(RefusalCode.CONTRACT, "an edit needs depth_codes_G or trace_N2")
        try:
            codes = self._contract.reasoning.depth_codes
            depth = None if edit.depth_codes_G is None else DepthTokens(codes_G=edit.depth_codes_G, num_codes=codes)
            trace = None if edit.trace_N2 is None else Trace(points_N2=edit.trace_N2)
        except SpecError as error:
            raise SteeringRefused(RefusalCode.CONTRACT, f"the edit breaks its spec: {error}") from error
        content = b"".join(b"" if part is None else part.tobytes() + b"|" for part in (edit.depth_codes_G, edit.trace_N2))
        self._edits.check(edit.revision, edit.author, content)
        self._edits.accept(edit.revision, edit.author, content, math.inf)
        return Guidance(depth=depth, trace=trace, flags=(f"edit:rev{edit.revision}",), applied_revision=edit.revision)


def steering_trace(drawn: SteeringInput, camera: str, sizes: dict[str, tuple[int, int]]) -> Trace:
    """Drawn pixels -> a trace of 1..5 points of 0..255: of what lies ahead, where the cell tells it. Raises `SteeringRefused`."""
    if drawn.image != camera:
        raise SteeringRefused(RefusalCode.CONTRACT, f"steering is drawn on {drawn.image!r}, this policy takes it on {camera!r}")
    if drawn.image not in sizes:
        raise SteeringRefused(RefusalCode.CONTRACT, f"steering is drawn on {drawn.image!r}, which this cell does not send")
    if (drawn.width, drawn.height) != sizes[drawn.image]:
        width, height = sizes[drawn.image]
        text = f"steering refers to an image of {drawn.width}x{drawn.height}, camera {drawn.image!r} sends {width}x{height}"
        raise SteeringRefused(RefusalCode.CONTRACT, text)
    whole = _trace_of(drawn.points_N2, drawn, "steering")
    return whole if drawn.ahead_N2 is None else _trace_of(drawn.ahead_N2, drawn, "what lies ahead of the steering")


def _trace_of(line_N2: NDArray[np.float32], drawn: SteeringInput, what: str) -> Trace:
    """A line in pixels of the image of `drawn` as a trace, checked."""
    points_N2 = np.asarray(line_N2, np.float64)
    if points_N2.ndim != 2 or points_N2.shape[1] != 2 or len(points_N2) == 0:
        raise SteeringRefused(RefusalCode.CONTRACT, f"{what} needs points (N, 2) with N of at least 1, got {points_N2.shape}")
    if len(points_N2) > MAX_DRAWN_POINTS:
        raise SteeringRefused(RefusalCode.TOO_LARGE, f"{what} has {len(points_N2)} points, at most {MAX_DRAWN_POINTS} are taken")
    if not np.isfinite(points_N2).all():
        raise SteeringRefused(RefusalCode.NONFINITE, f"{what} holds NaN or inf")
    try:
        inside_N2 = to_range(points_N2, width=drawn.width, height=drawn.height)
    except SpecError as error:
        raise SteeringRefused(RefusalCode.CONTRACT, f"{what} leaves the image: {str(error)[:300]}") from error
    if len(inside_N2) > TRACE_MAX_POINTS:
        inside_N2 = to_range(resampled(points_N2, TRACE_MAX_POINTS), width=drawn.width, height=drawn.height)
    return Trace(points_N2=inside_N2)
