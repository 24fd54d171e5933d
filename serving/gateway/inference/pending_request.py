"""One request on its way through the inference thread, and its result."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from model_core.spec.types import Decision, DecisionRequest, DepthTokens, Refusal, RefusalCode, Trace
from serving.gateway.operations.novelty_meter import NoveltyMeasurement

_FINAL = frozenset({RefusalCode.CONTRACT, RefusalCode.KILLED})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PendingResult:
    """The result of one request.

    queue_ms: waited before it joined the round; model_ms: from joining to the answer; batch: most rows that shared a block
    with it. level: that was asked of the policy ("" for its own). cheaper: it was not the level that was asked for first.
    retry_after_ms: with a refusal, when asking again may help. novelty: of the observation, while it is being measured.
    """

    decision: Decision
    queue_ms: float = 0.0
    model_ms: float = 0.0
    batch: int = 1
    level: str = ""
    cheaper: bool = False
    retry_after_ms: float = 0.0
    novelty: NoveltyMeasurement | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class PendingRequest:
    """A request with its deadline. `future` gives one `PendingResult`; it never raises and is never cancelled from outside.

    levels: those that may be served, most expensive first. alone: it shares no round (it may be what broke the last one).
    tries: it came to an idle engine, which always tries. refused_with: the code of the refusal that answered it, if one did.
    """

    request: DecisionRequest
    deadline: float
    asked_at: float
    levels: tuple[str, ...] = ("",)
    level: str = ""
    alone: bool = False
    tries: bool = False
    joined_at: float = 0.0
    batch: int = 1
    refused_with: RefusalCode | None = None
    novelty: NoveltyMeasurement | None = None
    future: Future[PendingResult] = field(default_factory=Future)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # From now on `future.cancel` does nothing: a caller that stops waiting calls `refuse`.
        self.future.set_running_or_notify_cancel()

    @property
    def is_over(self) -> bool:
        """It has its result, or the caller has given it up."""
        return self.future.done()

    def resolve(self, result: PendingResult) -> bool:
        """Set the result; False when there was one already."""
        with self._lock:
            if self.future.done():
                return False
            self.future.set_result(result)
            return True

    def refuse(
        self, code: RefusalCode, reason: str, *, now: float, contract_id: str = "", model_version: str = "", retry_after_ms: float = 0.0
    ) -> bool:
        """Answer with a refusal; it says whether the cell may ask again. False when the request was answered before."""
        if self.future.done():  # as nearly every request is when the next one replaces it
            return False
        refusal = Refusal(code=code, reason=reason, retryable=code not in _FINAL)
        decision = Decision(contract_id=contract_id, model_version=model_version, refusal=refusal)
        waited_s = (self.joined_at or now) - self.asked_at
        is_first = self.resolve(PendingResult(decision=decision, queue_ms=1e3 * waited_s, batch=self.batch, retry_after_ms=retry_after_ms))
        if is_first:
            self.refused_with = code
        return is_first

    def result_of(self, decision: Decision, now: float) -> PendingResult:
        """The result of this request, for a decision that came at `now`."""
        return PendingResult(
            decision=decision,
            queue_ms=1e3 * (self.joined_at - self.asked_at),
            model_ms=1e3 * (now - self.joined_at),
            batch=self.batch,
            level=self.level,
            cheaper=self.level != self.levels[0],
            novelty=self.novelty,
        )

    def as_joined(self) -> DecisionRequest:
        """The request at the level it joins with; it sends parts, and keeps running, only while the caller wants the answer."""
        send = self.request.on_part

        def send_if_wanted(name: str, value: DepthTokens | Trace) -> None:
            if send is not None and not self.is_over:
                send(name, value)

        on_part = None if send is None else send_if_wanted
        return replace(self.request, level=self.level, is_cancelled=lambda: self.is_over, on_part=on_part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """An operator's steering or edit, ready for a `DecisionRequest`. flags: as in the CHUNK. applied_revision: 0 for none."""

    steering: Trace | None = None
    depth: DepthTokens | None = None
    trace: Trace | None = None
    flags: tuple[str, ...] = ()
    applied_revision: int = 0

    @property
    def is_edit(self) -> bool:
        """Decoding continues from an edit."""
        return self.depth is not None or self.trace is not None
