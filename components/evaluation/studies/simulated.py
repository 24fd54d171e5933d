"""The trials of a study in the simulator of a suite: both policies in one process, one scene at a time, in the order of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.step_manifest import checkpoint_digest
from components.config.recipe import EvalConfig, GateConfig
from components.evaluation.evaluate import cases_of, protocol_of
from components.evaluation.policy_loader import DEFAULT_POLICY, check_embodiment, embodiment_name, open_policy, own_checkpoint
from components.evaluation.rollout import Rollout, roll_out
from components.evaluation.studies.design import BLOCKS, Scene, StudyDesign
from components.evaluation.studies.plan import PlannedTrial
from components.evaluation.studies.run import RunTrial, Trialled
from components.evaluation.suite import Case, FitsPolicies, Suite
from components.simulation.interface import Simulator
from model_core.spec.documents import to_document
from model_core.spec.errors import SpecError, require
from model_core.spec.execution.guard import Guarded
from model_core.spec.types import StopReason

SIMULATOR_RULE = (
    "a trial whose simulator failed (env_error) is void and voids its pair; nothing else is. A trial that was running when the program "
    "ended is run again: the same scene gives the same trial. A refusal is a failure"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestants:
    """Both checkpoints, opened, by side. policies: behind the guard that workcells' answers pass too. suites: as each policy sees it."""

    suites: Mapping[str, Suite]
    policies: Mapping[str, Guarded]
    digests: Mapping[str, str]
    contracts: Mapping[str, str]
    control_hz: float


def open_contestants(
    cfg: EvalConfig, suite: Suite, checkpoints: Mapping[str, Path], scratch: Path, policy: str = DEFAULT_POLICY
) -> Contestants:
    """Open "candidate" and "champion" and check that both were made for the suite's embodiment.

    Raises `ContractError` for one that was not, `CheckpointError` for one that is damaged, `SpecError` for one checkpoint as both: it is
    compared with itself. scratch: for parts of checkpoints that act for several embodiments. policy: "module:function" that opens both.
    """
    first = cases_of(suite)[0]
    digests = {side: checkpoint_digest(folder) for side, folder in checkpoints.items()}
    require(
        len(set(digests.values())) == 2,
        "candidate and champion are one checkpoint; expected two different ones",
        got=digests["candidate"][:12],
    )
    opened = {
        side: open_policy(policy, own_checkpoint(folder, lambda: embodiment_name(suite.open(first)), scratch / side), cfg.reasoning)
        for side, folder in checkpoints.items()
    }
    suites = {side: suite.fitted(one) if isinstance(suite, FitsPolicies) else suite for side, (_, one) in opened.items()}
    for side, (_, contract) in opened.items():
        check_embodiment(suites[side].open(first), contract)
    seen = [(dict(suites[side].rules), opened[side][1].embodiment.control_hz) for side in ("candidate", "champion")]
    require(
        seen[0] == seen[1], "candidate and champion act under other rules, so they cannot be compared; candidate, then champion", got=seen
    )
    return Contestants(
        suites=suites,
        policies={side: guarded for side, (guarded, _) in opened.items()},
        digests=digests,
        contracts={side: contract.contract_id for side, (_, contract) in opened.items()},
        control_hz=opened["candidate"][1].embodiment.control_hz,
    )


def simulated_design(cfg: EvalConfig, gate: GateConfig, contestants: Contestants, *, seed: int, metric: str) -> StudyDesign:
    """The design of a study over every case of the suite. Raises `SpecError` for a metric or a test that it cannot have."""
    check_metric(gate, metric)
    suite = contestants.suites["candidate"]
    cases = cases_of(suite)
    return StudyDesign(
        candidate=contestants.digests["candidate"],
        champion=contestants.digests["champion"],
        tasks=tuple(sorted({case.task for case in cases})),
        gate=to_document(gate),
        rules=protocol_of(cfg, suite, contestants.control_hz),
        first_seed=cfg.first_seed,
        metric=metric,
        void_rule=SIMULATOR_RULE,
        version=2,
        assignment=BLOCKS,
        seed=seed,
        scenes=scenes_of(suite),
    )


def scenes_of(suite: Suite) -> tuple[Scene, ...]:
    """Every case of a suite."""
    return tuple(Scene(task=case.task, seed=case.seed) for case in cases_of(suite))


def check_metric(gate: GateConfig, metric: str) -> None:
    """Raises `SpecError` for a metric that there is not, or that the gate's test cannot judge."""
    require(metric in ("success", "score"), 'metric: expected "success" or "score"', got=metric)
    if metric == "score" and gate.test != "anytime":
        raise SpecError(f"metric score is judged by the anytime test, got gate.test={gate.test}. Fix: --set gate.test=anytime")


def simulated_trials(cfg: EvalConfig, contestants: Contestants, film: Path | None = None) -> RunTrial:
    """How one trial is run. film: folder for a rollout strip of each trial (None: none is drawn)."""
    opened: dict[str, Simulator] = {}

    def run(planned: PlannedTrial) -> Trialled:
        if planned.side not in opened:
            opened[planned.side] = contestants.suites[planned.side].open(Case(task=planned.task, seed=planned.seed))
        strips = frozenset({planned.seed}) if film is not None else frozenset[int]()
        policy = contestants.policies[planned.side]
        [rollout] = roll_out(policy, [opened[planned.side]], planned.task, [planned.seed], cfg, strip_seeds=strips)
        row, video = rollout.row, ""
        if film is not None and rollout.frames:
            video = f"{film.name}/{planned.place:05d}.png"
            _draw(rollout, contestants.control_hz, film / f"{planned.place:05d}.png")
        return Trialled(
            success=row.success,
            stop_reason=row.stop_reason,
            void=row.stop_reason == StopReason.ENV_ERROR,
            steps=row.steps,
            decisions=row.decisions,
            refusals=row.refusals,
            progress=row.progress,
            contract=contestants.contracts[planned.side],
            detail=row.detail,
            video=video,
            holds=row.holds,
        )

    return run


def _draw(rollout: Rollout, control_hz: float, path: Path) -> None:
    from components.evaluation.rollout_strip import draw_rollout_strip

    path.parent.mkdir(parents=True, exist_ok=True)
    draw_rollout_strip(rollout.frames, rollout.row, control_hz, lambda _: None, path)
