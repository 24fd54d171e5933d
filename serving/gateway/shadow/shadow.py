"""A shadow of the live policy: a thread that hands live observations, with their answers, to the candidate and counts what comes back.

The event loop does one thing for it: it puts a reference into a bounded queue. Whatever the candidate does (hangs, dies, answers
garbage), the queue drops what is too much, the process is killed, and after a few restarts the shadow ends, with its reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from model_core.spec.errors import ContractError, NotReady, WireError
from model_core.spec.protocol.wire import Chunk, Observe, Reject
from serving.gateway.inference.served_model import ServedModel
from serving.gateway.operations.metrics import Metrics
from serving.gateway.shadow.candidate_process import CandidateProcess, ShadowSettings
from serving.gateway.shadow.distances import distances, units
from serving.gateway.shadow.tally import ShadowTally

logger = logging.getLogger(__name__)

_POLL_S = 0.2


class Shadow:
    """One candidate beside one live model. model: the live one, None until it is loaded. cell: the only one compared, "" for all."""

    def __init__(
        self, candidate: CandidateProcess, model: Callable[[], ServedModel | None], metrics: Metrics, settings: ShadowSettings
    ) -> None:
        self.tally, self.cell = ShadowTally(), ""
        self._candidate, self._model, self._metrics, self._settings = candidate, model, metrics, settings
        self._waiting: deque[tuple[Observe, Chunk | Reject]] = deque()
        self._wake = threading.Condition()  # guards the queue
        self._state, self._stopping = "waiting for the live model", False
        self._counts: dict[str, int] = dict.fromkeys(("seen", "dropped", "late", "garbage", "restarts"), 0)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the candidate and the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._candidate.stop()

    def see(self, cell: str, observe: Observe, live: Chunk | Reject) -> None:
        """A live observation of a cell was answered. Called on the event loop; steered and edited ones are not compared."""
        if self._state != "comparing" or self.cell not in ("", cell) or (isinstance(live, Chunk) and live.applied_revision):
            return
        with self._wake:
            self._counts["seen"] += 1
            if len(self._waiting) >= self._settings.queue:
                self._waiting.popleft()
                self._count("dropped")
            self._waiting.append((observe, live))
            self._wake.notify()

    def document(self) -> dict[str, Any]:
        """What was found so far, as JSON values."""
        candidate, contract = self._candidate, self._candidate.contract
        identity = {"model_version": candidate.model_version, "bundle_digest": candidate.bundle_digest}
        tasks = {} if contract is None else self.tally.document(units(contract))
        contract_id = "" if contract is None else contract.contract_id
        return {"state": self._state, **identity, "contract_id": contract_id, **self._counts, "tasks": tasks}

    # --- the shadow's own thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        model = self._live_model()
        while model is not None and not self._stopping:
            try:
                self._state = "loading"
                self._candidate.start(model.contract)
                self._state = "comparing"
                logger.info("shadow.comparing candidate=%s", self._candidate.model_version)
                self._compare(model)
            except ContractError as error:
                self._fail(str(error))
                return
            except (NotReady, OSError, EOFError, WireError) as error:
                if self._stopping or not self._restarts(error):
                    return
        self._candidate.stop()

    def _live_model(self) -> ServedModel | None:
        """The live model, when it has been loaded; None when the shadow was stopped before."""
        model = self._model()
        while model is None and not self._stopping:
            time.sleep(_POLL_S)
            model = self._model()
        return model

    def _compare(self, model: ServedModel) -> None:
        while (asked := self._next()) is not None:
            observe, live = asked
            answer = self._candidate.ask(observe, live)
            is_late = answer.ms > 1e3 * self._settings.deadline_s
            if is_late:
                self._count("late")
            measured: dict[str, float] = {}
            if isinstance(live, Chunk) and isinstance(answer.reply, Chunk):
                if answer.reply.actions_KA.shape[1:] != live.actions_KA.shape[1:] or not np.isfinite(answer.reply.actions_KA).all():
                    raise WireError("the candidate's actions are of another shape, or not finite")
                measured = distances(live, answer.reply, model.contract)
                measured |= {} if answer.depth is None else {"depth": answer.depth}
            self.tally.add(
                observe.observation.instruction, f"{observe.session_id}/{observe.episode_id}", live, answer.reply, measured, answer.ms
            )
            self._metrics.shadow_compared.inc(bool(measured))
            for name in ("action", "depth", "trace"):
                if name in measured:
                    self._metrics.shadow_distance.labels(name).observe(measured[name])

    def _next(self) -> tuple[Observe, Chunk | Reject] | None:
        with self._wake:
            while not self._waiting and not self._stopping:
                self._wake.wait()
            return None if self._stopping else self._waiting.popleft()

    def _restarts(self, error: Exception) -> bool:
        """Whether another process is started after this failure."""
        self._candidate.stop()
        self._count("late" if isinstance(error, TimeoutError) else "garbage")
        reason = "it hung" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        if self._counts["restarts"] >= self._settings.max_restarts:
            self._fail(f"{reason}; {self._counts['restarts']} processes were started again")
            return False
        self._counts["restarts"] += 1
        logger.warning("shadow.restarted reason=%s", reason[:300])
        with self._wake:
            self._waiting.clear()
        return True

    def _fail(self, reason: str) -> None:
        self._candidate.stop()
        self._state = f"failed: {reason[:500]}"
        logger.error("shadow.failed reason=%s; the live policy is not touched", reason[:500])

    def _count(self, what: str) -> None:
        self._counts[what] += 1
        self._metrics.shadow_lost.labels(what).inc()
