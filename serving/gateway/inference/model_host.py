"""The model behind the gateway: loaded, probed, measured, run, watched, and replaced by a fresh one when it hangs or dies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import NotReady
from model_core.spec.execution.guard import Guarded
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.types import DecisionRequest, Policy, RequestPolicy
from serving.gateway.inference.admission import ServiceTimes, cheaper_levels
from serving.gateway.inference.golden_probes import Probe, failed_probes
from serving.gateway.inference.inference_thread import EngineThread
from serving.gateway.inference.pending_request import Guidance, Ticket
from serving.gateway.inference.warm_up import Found, synthetic_observation, warm_up
from serving.gateway.operations.limits import Limits
from serving.gateway.operations.service_state import Standing, State

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A policy with its promises and its golden probes. bundle_digest: of the packed files, "" for what was never packed."""

    policy: Policy
    contract: PolicyContract
    model_version: str
    probes: list[Probe] = field(default_factory=list)
    bundle_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers."""

    contract: PolicyContract
    contract_id: str
    model_version: str
    bundle_digest: str = ""


class EngineRoom:
    """One engine at a time, of one model. `load` is called in a thread of its own; everything else is quick and thread-safe."""

    def __init__(self, load: Callable[[], LoadedModel], limits: Limits, standing: Standing, clock: Callable[[], float]) -> None:
        self.engine: EngineThread | None = None
        self.identity: Identity | None = None
        self.times = ServiceTimes(limits.window_s)
        self._load, self._limits, self._standing, self._clock = load, limits, standing, clock
        self._found = Found(own="", works={})
        self._missed = 0

    def start(self) -> None:
        """Begin to load; returns at once. The standing tells what comes of it."""
        threading.Thread(target=self._open, name="loader", daemon=True).start()

    def stop(self) -> None:
        """Refuse what waits, end the engine."""
        if self.engine is not None:
            self.engine.stop()

    @property
    def answers(self) -> bool:
        """The probes passed, and the engine neither hangs nor is broken."""
        engine = self.engine
        return self._standing.state is State.READY and engine is not None and engine.busy_s < self._limits.hung_s and not engine.broken

    @property
    def trouble(self) -> str:
        """Why an engine that was ready does not answer now; "" while it does, or before it was."""
        if self._standing.state is not State.READY or self.answers:
            return ""
        broken = "" if self.engine is None else self.engine.broken
        return broken or f"one batch has been running for more than {self._limits.hung_s:g} s"

    def submit(self, request: DecisionRequest, deadline: float, asked: str, guidance: Guidance) -> Ticket:
        """Hand a request to the engine, with the levels that may stand in for the one that was asked."""
        if self.engine is None:  # cannot be: sessions exist after the first engine only
            raise NotReady("there is no engine")
        return self.engine.submit(request, deadline, self._levels(request, asked, guidance))

    def newly_missed(self) -> int:
        """Admitted requests that were missed since the last call."""
        engine = self.engine
        if engine is None:
            return 0
        missed, self._missed = engine.missed - self._missed, engine.missed
        return max(missed, 0)

    def replace(self, why: str) -> bool:
        """Give this engine up and load another; False when that was done too often lately."""
        logger.error("engine.lost reason=%s", why)
        may_restart = self._standing.lost(why, self._clock())
        if self.engine is not None:
            self.engine.abandon(why)
        if may_restart:
            self.start()
        return may_restart

    def _levels(self, request: DecisionRequest, asked: str, guidance: Guidance) -> tuple[str, ...]:
        if guidance.is_edit or self.identity is None:
            return (asked,)
        levels = cheaper_levels(asked, self.identity.contract.reasoning.levels, self._found.works, self._found.own)
        unfit = set()
        if guidance.steering is not None:  # what a person drew must be said, so a level without a trace is no substitute
            unfit.add("action")
        if request.previous is None:
            unfit.add("reuse-depth")
        return tuple(level for level in levels if level == asked or level not in unfit)

    def _open(self) -> None:
        began = self._clock()
        try:
            model = self._load()
            guarded = as_request_policy(Guarded(policy=as_request_policy(model.policy), contract=model.contract))
            complaints = failed_probes(guarded, model.contract, model.probes)
            if complaints:
                logger.error("probes.failed %s", "; ".join(complaints))
                self._standing.fail(f"{len(complaints)} of {len(model.probes)} golden probes failed: {complaints[0]}")
                return
            self._measure(guarded, model)
            self._install(guarded, model)
        except Exception as error:
            # Loading fails for many reasons (files, libraries, memory); all of them mean: never ready, say why.
            logger.exception("model.failed")
            self._standing.fail(f"the model could not be loaded: {type(error).__name__}")
            return
        logger.info(
            "model.ready version=%s contract=%s probes=%d seconds=%.1f levels=%s",
            model.model_version,
            model.contract.contract_id,
            len(model.probes),
            self._clock() - began,
            self.times.profile(),
        )

    def _measure(self, policy: RequestPolicy, model: LoadedModel) -> None:
        if self._limits.warm_up_s <= 0:
            return
        seen = model.probes[0].observation if model.probes else synthetic_observation(model.contract)
        times = ServiceTimes(self._limits.window_s)
        budget_s, rows = self._limits.warm_up_s, self._limits.max_batch
        self._found = warm_up(policy, model.contract, seen, times, budget_s=budget_s, max_batch=rows, clock=self._clock)
        self.times = times

    def _install(self, policy: RequestPolicy, model: LoadedModel) -> None:
        who = Identity(
            contract=model.contract,
            contract_id=model.contract.contract_id,
            model_version=model.model_version,
            bundle_digest=model.bundle_digest,
        )
        if self.identity is not None and who != self.identity:
            self._standing.fail("the model on disk has changed; an episode keeps its model, so start the service anew")
            return
        engine = EngineThread(
            policy,
            contract_id=who.contract_id,
            model_version=who.model_version,
            times=self.times,
            max_batch=self._limits.max_batch,
            max_queue=self._limits.max_queue,
            clock=self._clock,
        )
        self.identity, self.engine, self._missed = who, engine, 0
        engine.start()
        if not self._standing.ready():  # stopped meanwhile
            engine.stop()
