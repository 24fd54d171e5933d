"""Closed-loop evaluation: how often a checkpoint solves each task on seeds it was never trained on.

Seeds are worked through in fixed groups: a group is what is batched and what is finished or not, so that an evaluation that was
stopped and taken up again asks exactly the same batches. Before any rollout the image-swap check stops a model that ignores the image.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.worker_pool import worker_pool
from components.artifacts.step_manifest import checkpoint_digest
from components.config.recipe import EvalConfig
from components.config.records import EvalReport, Progress, RolloutRow
from components.data.frozen_members import open_frozen
from components.evaluation.image_swap import check_image_dependence, image_dependence_numbers, measure_image_dependence
from components.evaluation.intervals import task_score
from components.evaluation.policy_loader import DEFAULT_POLICY, check_embodiment, embodiment_name, open_policy, own_checkpoint
from components.evaluation.rollout import roll_out
from components.evaluation.rollout_files import Group, collected, file_name, read_frames, rows_file, write_frames, write_rows
from components.evaluation.suite import Case, FitsPolicies, Suite
from components.simulation.interface import Simulator
from model_core.spec.contract import PolicyContract
from model_core.spec.documents import to_document
from model_core.spec.errors import require
from model_core.spec.files import atomic_write
from model_core.spec.types import Policy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """What a worker process needs to run groups: plain values only."""

    cfg: EvalConfig
    suite: Suite
    checkpoint: Path
    policy: str
    scratch: Path


def evaluate(
    cfg: EvalConfig,
    checkpoint: Path,
    out: Path,
    progress: Progress,
    *,
    suite: Suite,
    frozen: Path | None = None,
    policy: str = DEFAULT_POLICY,
) -> dict[str, Any]:
    """Evaluate `checkpoint` on every case of `suite` and write out/report.json, out/film/<task>.png, out/undigested/timing.json.

    suite: what it is measured on (see `open_suite`). frozen: data set whose validation frames the image-swap measurement uses
    (None: not measured). policy: "module:function" that opens a checkpoint. Returns the record (an `EvalReport` document).
    Raises `GateError` for a model that ignores the image, `SpecError` for a suite without cases or with one twice,
    `ContractError` when the simulator is not the embodiment that the checkpoint was made for, `JobError` when a worker process dies.
    """
    cases, digest = cases_of(suite), checkpoint_digest(checkpoint)
    checkpoint = own_checkpoint(checkpoint, lambda: embodiment_name(suite.open(cases[0])), out / "scratch" / "parts")
    opened, contract = open_policy(policy, checkpoint, cfg.reasoning)
    if isinstance(suite, FitsPolicies):
        suite = suite.fitted(contract)
    check_embodiment(suite.open(cases[0]), contract)
    frozen = None if frozen is None else open_frozen(frozen).folder_of(contract.embodiment.name)
    blindness = _image_swap_check(cfg, opened, contract, frozen, progress)
    _draw_held_out(opened, contract, frozen, checkpoint, out / "undigested" / "examples" / "held_out.png")
    exam = Exam(cfg=cfg, suite=suite, checkpoint=checkpoint.resolve(), policy=policy, scratch=out / "scratch" / "groups")
    exam.scratch.mkdir(parents=True, exist_ok=True)
    groups = plan_groups(cfg, cases)
    run_groups(exam, groups, progress)
    rows, timing = collected(exam.scratch, groups)
    _draw_rollout_strips(exam.scratch, groups, rows, contract, checkpoint, out / "film")
    report = make_report(cfg, suite, contract, digest, rows, blindness)
    document = to_document(report)
    atomic_write(out / "report.json", json.dumps(document, indent=1, sort_keys=True))
    atomic_write(out / "undigested" / "timing.json", json.dumps(timing, indent=1, sort_keys=True))
    return document | {"undigested": timing}


def cases_of(suite: Suite) -> Sequence[Case]:
    """Every case of a suite. Raises `SpecError` where there is none, or one stands there twice: the gate counts trials as independent."""
    cases = suite.cases()
    require(len(cases) > 0, f"suite {suite.name!r} has no cases; nothing can be measured on it")
    twice = [f"{case.task}, seed {case.seed}" for case, count in Counter(cases).items() if count > 1]
    told = f"suite {suite.name!r}: an initial state that is repeated is no further trial; expected each case once, got again {twice[:3]}"
    require(not twice, f"{told}. Fix: give each case a seed of its own")
    return cases


def plan_groups(cfg: EvalConfig, cases: Sequence[Case]) -> list[Group]:
    """The cases of each task in groups of `cfg.batch`, tasks in turn so that two workers begin with different ones."""
    seeds: dict[str, list[int]] = {}
    for case in cases:
        seeds.setdefault(case.task, []).append(case.seed)
    most = max(map(len, seeds.values()), default=0)
    groups: list[Group] = []
    for start in range(0, most, cfg.batch):
        for task, mine in seeds.items():
            if part := tuple(mine[start : start + cfg.batch]):
                groups.append(Group(task=task, seeds=part, strip_seeds=tuple(s for s in part if s in mine[: cfg.films_per_task])))
    return groups


def make_report(
    cfg: EvalConfig,
    suite: Suite,
    contract: PolicyContract,
    digest: str,
    rows: Sequence[RolloutRow],
    blindness: Mapping[str, float],
) -> EvalReport:
    """Count successes over trials; an episode that the simulator failed is listed and is no trial."""
    per_task = {task: task_score([row for row in rows if row.task == task]) for task in sorted({row.task for row in rows})}
    total = task_score(rows)
    return EvalReport(
        checkpoint_digest=digest,
        contract_id=contract.contract_id,
        successes=total.successes,
        trials=total.trials,
        interval=total.interval,
        per_task=per_task,
        episodes=tuple(rows),
        protocol=protocol_of(cfg, suite, contract.embodiment.control_hz),
        blindness=blindness,
    )


def protocol_of(cfg: EvalConfig, suite: Suite, control_hz: float) -> dict[str, Any]:
    """The rules of an evaluation, known before its first trial: two are compared only where they are equal."""
    return {
        **suite.rules,
        "suite": suite.name,
        "suite_version": suite.version,
        "control_hz": control_hz,
        "reasoning": cfg.reasoning,
        "execute_horizon": cfg.execute_horizon,
        "first_seed": cfg.first_seed,
        **({} if cfg.steering == "none" else {"steering": cfg.steering}),
    }


def _image_swap_check(
    cfg: EvalConfig, policy: Policy, contract: PolicyContract, frozen: Path | None, progress: Progress
) -> dict[str, float]:
    if frozen is None or cfg.image_swap_frames == 0:
        return {}
    from components.data.frozen_dataset import load_split

    progress.update(0, 1, "exchanging images: does the policy use them?")
    found = measure_image_dependence(policy, load_split(frozen, "validation"), contract, frames_per_task=cfg.image_swap_frames)
    check_image_dependence(found, cfg.min_image_swap_change)
    return image_dependence_numbers(found)


def _draw_held_out(policy: Policy, contract: PolicyContract, frozen: Path | None, checkpoint: Path, path: Path) -> None:
    """Held-out frames with what the policy predicts for them. An image that cannot be drawn ends no evaluation."""
    if frozen is None:
        return
    from components.data.frozen_dataset import load_split
    from components.evaluation.rollout_strip import depth_decoder, draw_examples

    try:
        draw_examples(policy, load_split(frozen, "validation"), contract, depth_decoder(checkpoint), path)
    except Exception:
        logger.warning("examples.not_drawn", exc_info=True)


def run_groups(exam: Exam, groups: Sequence[Group], progress: Progress) -> None:
    """Run the groups that have no rows yet, in worker processes. Raises `JobError` when one dies."""
    waiting = [group for group in groups if not rows_file(exam.scratch, group).exists()]
    total = sum(len(group.seeds) for group in groups)
    done = total - sum(len(group.seeds) for group in waiting)
    solved = 0
    progress.update(done, total, "rollouts")
    if not waiting:
        return

    def killed() -> str:
        what = f"evaluate: a rollout process was killed after {done} of {total} episodes (out of memory?)"
        return f"{what}. Fix: run again, finished groups are kept"

    with worker_pool(min(exam.cfg.workers, len(waiting)), killed) as pool:
        futures = {pool.submit(_run_group, exam, group): group for group in waiting}
        for future in as_completed(futures):
            solved += future.result()
            done += len(futures[future].seeds)
            progress.update(done, total, f"rollouts, {solved} solved so far")


# --- worker processes: each has its own policy, simulators and renderer ---------------------------------------------

_OPENED: dict[str, Policy] = {}
_SIMULATORS: dict[str, list[Simulator]] = {}


def _run_group(exam: Exam, group: Group) -> int:
    """Run one group and write its rows; returns how many episodes were solved."""
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    key = f"{exam.policy} {exam.checkpoint} {exam.cfg.reasoning}"
    if key not in _OPENED:
        _OPENED[key] = open_policy(exam.policy, exam.checkpoint, exam.cfg.reasoning)[0]
    simulators = _SIMULATORS.setdefault(repr(exam.suite), [])
    simulators.extend(exam.suite.open(Case(task=group.task, seed=seed)) for seed in group.seeds[len(simulators) :])
    rollouts = roll_out(_OPENED[key], simulators, group.task, group.seeds, exam.cfg, strip_seeds=frozenset(group.strip_seeds))
    for rollout in rollouts:
        write_frames(exam.scratch, rollout)
    write_rows(rows_file(exam.scratch, group), rollouts)
    return sum(rollout.row.success for rollout in rollouts)


# --- files between worker and stage ---------------------------------------------------------------------------------


def _draw_rollout_strips(
    scratch: Path, groups: Sequence[Group], rows: Sequence[RolloutRow], contract: PolicyContract, checkpoint: Path, folder: Path
) -> None:
    """A rollout strip of every episode of `strip_seeds`: <task>.png for the first of a task, <task>-<seed>.png for the others."""
    from components.evaluation.rollout_strip import depth_decoder, draw_rollout_strip

    strip_seeds = {(group.task, seed) for group in groups for seed in group.strip_seeds}
    decode = depth_decoder(checkpoint)
    seen: set[str] = set()
    for row in rows:
        if (row.task, row.seed) in strip_seeds and (frames := read_frames(scratch, row)):
            name = file_name(row.task) + (f"-{row.seed}" if row.task in seen else "")
            seen.add(row.task)
            draw_rollout_strip(frames, row, contract.embodiment.control_hz, decode, folder / f"{name}.png")
