"""Has the groups of an evaluation run by the pods of a cluster, before the evaluation itself reads their results."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

from components.config.data_config import CollectConfig
from components.config.launch.evaluation_job import EvaluationSpec
from components.config.ports import Cluster
from components.config.recipe import EvalConfig
from components.config.records import Progress
from components.evaluation.evaluate import cases_of
from components.evaluation.policy_loader import DEFAULT_POLICY, embodiment_name, own_checkpoint
from components.evaluation.rollout_files import Group, rows_file
from components.evaluation.spread.document import SpreadEvaluation
from components.evaluation.suite import open_suite
from model_core.spec.errors import require

logger = logging.getLogger(__name__)
_LOOK_S = 1.0


def spread_groups(cluster: Cluster, spec: EvaluationSpec, cfg: EvalConfig, checkpoint: Path, out: Path, progress: Progress) -> None:
    """Run the groups of `cfg`'s suite that are not finished in `out` yet, by the pods of `spec`, and wait for them.

    `out` and the checkpoint must be below spec.mount. What finished is kept whatever happens, and `evaluate` on the same `out` goes on from
    it. Raises `JobError` where pods fail.
    """
    out, collect = out.resolve(), CollectConfig()
    suite = open_suite(cfg, collect)
    own = own_checkpoint(checkpoint.resolve(), lambda: embodiment_name(suite.open(cases_of(suite)[0])), out / "scratch" / "parts")
    for what, path in (("the policy", own), ("the output", out)):
        require(path.is_relative_to(spec.mount), f"pods see only {spec.mount}: {what} must be below it", got=path)
    scratch = out / "scratch" / "groups"
    scratch.mkdir(parents=True, exist_ok=True)
    spread = SpreadEvaluation(cfg=cfg, collect=collect, checkpoint=own, policy=DEFAULT_POLICY, scratch=scratch)
    groups = spread.groups()
    if all(rows_file(scratch, group).exists() for group in groups):
        return
    pods = min(spec.nodes, len(groups))
    spec = replace(spec, nodes=pods, job=str(spread.save()))
    cluster.submit(spec)
    ended = threading.Event()
    watching = threading.Thread(target=_tell, args=(groups, scratch, progress, ended), name=f"progress-{spec.name}", daemon=True)
    watching.start()
    try:
        cluster.wait(spec)
    finally:
        ended.set()
        watching.join(5)
        cluster.delete(spec)


def _tell(groups: list[Group], scratch: Path, progress: Progress, ended: threading.Event) -> None:
    total, before = sum(len(group.seeds) for group in groups), -1
    while not ended.wait(_LOOK_S):
        done = sum(len(group.seeds) for group in groups if rows_file(scratch, group).exists())
        if done != before:
            progress.update(done, total, "rollouts on the cluster")
        before = done
