"""The model behind the gateway: loaded, checked by golden probes, measured, run, and loaded again when its engine hangs or dies."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable

from model_core.spec.errors import NotReady
from model_core.spec.execution.guard import Guarded
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.types import DecisionRequest, RequestPolicy
from serving.gateway.inference.admission import cheaper_levels
from serving.gateway.inference.golden_probes import failed_golden_probes
from serving.gateway.inference.inference_thread import InferenceThread
from serving.gateway.inference.pending_request import Guidance, PendingRequest
from serving.gateway.inference.served_model import LoadedModel, ServedModel
from serving.gateway.inference.service_times import ServiceTimes
from serving.gateway.inference.warm_up import WarmUpBudget, WarmUpResult, synthetic_observation, warm_up
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.operations.novelty_meter import NoveltyMeter
from serving.gateway.operations.service_state import ServiceState, State

logger = logging.getLogger(__name__)


class ModelHost:
    """One engine at a time, of one model. `load` is called in a thread of its own; everything else is quick and thread-safe."""

    def __init__(self, load: Callable[[], LoadedModel], limits: GatewayLimits, state: ServiceState, clock: Callable[[], float]) -> None:
        self.engine: InferenceThread | None = None
        self.model: ServedModel | None = None
        self.times = ServiceTimes(limits.window_s)
        self._load, self._limits, self._state, self._clock = load, limits, state, clock
        self._warmed_up = WarmUpResult(own="", works={})
        self._missed = 0
        self._meter: NoveltyMeter | None = None

    def start(self) -> None:
        """Begin to load; returns at once. The service state says how it ended."""
        threading.Thread(target=self._open, name="loader", daemon=True).start()

    def stop(self) -> None:
        """Refuse waiting requests and end the engine."""
        if self.engine is not None:
            self.engine.stop()
        if self._meter is not None:
            self._meter.stop()

    @property
    def answers(self) -> bool:
        """The golden probes passed, and the engine neither hangs nor is broken."""
        engine = self.engine
        return self._state.state is State.READY and engine is not None and engine.busy_s < self._limits.hung_s and not engine.broken

    @property
    def trouble(self) -> str:
        """Why an engine that was ready does not answer now; "" while it does, or before it was."""
        if self._state.state is not State.READY or self.answers:
            return ""
        broken = "" if self.engine is None else self.engine.broken
        return broken or f"one batch has been running for more than {self._limits.hung_s:g} s"

    def submit(self, request: DecisionRequest, deadline: float, asked: str, guidance: Guidance) -> PendingRequest:
        """Hand a request to the engine, with the levels that may replace the one that was asked for."""
        if self.engine is None:  # cannot be: sessions exist after the first engine only
            raise NotReady("no engine is running")
        return self.engine.submit(request, deadline, self._levels(request, asked, guidance))

    def newly_missed(self) -> int:
        """Admitted requests that were missed since the last call."""
        engine = self.engine
        if engine is None:
            return 0
        missed, self._missed = engine.missed - self._missed, engine.missed
        return max(missed, 0)

    def replace(self, why: str) -> bool:
        """Abandon this engine and load another; False when that happened too often recently."""
        logger.error("engine.lost reason=%s", why)
        may_restart = self._state.lost(why, self._clock())
        if self.engine is not None:
            self.engine.abandon(why)
        if may_restart:
            self.start()
        return may_restart

    def _levels(self, request: DecisionRequest, asked: str, guidance: Guidance) -> tuple[str, ...]:
        if guidance.is_edit or self.model is None:
            return (asked,)
        levels = cheaper_levels(asked, self.model.contract.reasoning.levels, self._warmed_up.works, self._warmed_up.own)
        unfit = set()
        if guidance.steering is not None:  # an operator's drawing must be followed, so a level without a trace cannot replace the asked one
            unfit.add("action")
        if request.previous is None:
            unfit.add("reuse-depth")
        return tuple(level for level in levels if level == asked or level not in unfit)

    def _open(self) -> None:
        moments = [self._clock()]
        try:
            model = self._load()
            moments.append(self._clock())
            guarded = as_request_policy(Guarded(policy=as_request_policy(model.policy), contract=model.contract))
            complaints = failed_golden_probes(guarded, model.contract, model.probes)
            if complaints:
                logger.error("probes.failed %s", "; ".join(complaints))
                self._state.fail(f"{len(complaints)} of {len(model.probes)} golden probes failed: {complaints[0]}")
                return
            moments.append(self._clock())
            self._measure(guarded, model)
            self._install(guarded, model)
        except Exception as error:
            # Loading fails for many reasons (files, libraries, memory); all of them mean: never ready, say why.
            logger.exception("model.failed")
            self._state.fail(f"the model could not be loaded: {type(error).__name__}")
            return
        moments.append(self._clock())
        logger.info(
            "model.ready version=%s contract=%s probes=%d load_s=%.1f probes_s=%.1f warm_up_s=%.1f levels=%s",
            model.model_version,
            model.contract.contract_id,
            len(model.probes),
            *(after - before for before, after in itertools.pairwise(moments)),
            self.times.profile(),
        )

    def _measure(self, policy: RequestPolicy, model: LoadedModel) -> None:
        if self._limits.warm_up_s <= 0:
            return
        seen = model.probes[0].observation if model.probes else synthetic_observation(model.contract)
        times = ServiceTimes(self._limits.window_s)
        budget = WarmUpBudget(seconds=self._limits.warm_up_s, max_batch=self._limits.max_batch)
        self._warmed_up = warm_up(policy, model.contract, seen, times, budget, clock=self._clock)
        self.times = times

    def _install(self, policy: RequestPolicy, model: LoadedModel) -> None:
        who = model.identity
        if self.model is not None and who != self.model:
            self._state.fail("the model on disk has changed, and an episode keeps its model; restart the service to serve the new one")
            return
        engine = InferenceThread(
            policy,
            who,
            times=self.times,
            max_batch=self._limits.max_batch,
            max_queue=self._limits.max_queue,
            clock=self._clock,
        )
        if self._meter is not None:
            self._meter.stop()
        self._meter = engine.meter = None if model.novelty is None else NoveltyMeter(model.novelty, model.contract)
        self.model, self.engine, self._missed = who, engine, 0
        engine.start()
        if not self._state.ready():  # stopped meanwhile
            engine.stop()
