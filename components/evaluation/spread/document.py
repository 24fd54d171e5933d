"""What each pod of a spread evaluation reads: the cases, the policy, and where finished groups lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.evaluation.evaluate import Exam, cases_of, plan_groups
from components.evaluation.policy_loader import check_embodiment, open_policy
from components.evaluation.rollout_files import Group
from components.evaluation.suite import FitsPolicies, open_suite
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from model_core.spec.files import atomic_write

NAME = "spread.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadEvaluation:
    """The part of an evaluation that pods do. checkpoint: of one embodiment. scratch: where groups and this document lie."""

    cfg: EvalConfig
    collect: CollectConfig
    checkpoint: Path
    policy: str
    scratch: Path

    def exam(self) -> Exam:
        """What groups are run with, on this machine. Raises `ContractError` for a suite of another embodiment."""
        _, contract = open_policy(self.policy, self.checkpoint, self.cfg.reasoning)
        suite = open_suite(self.cfg, self.collect)
        if isinstance(suite, FitsPolicies):
            suite = suite.fitted(contract)
        check_embodiment(suite.open(cases_of(suite)[0]), contract)
        return Exam(cfg=self.cfg, suite=suite, checkpoint=self.checkpoint, policy=self.policy, scratch=self.scratch)

    def groups(self) -> list[Group]:
        """All groups, in the order in which every machine counts them."""
        return plan_groups(self.cfg, cases_of(open_suite(self.cfg, self.collect)))

    def save(self) -> Path:
        """Write it where pods read it."""
        path = self.scratch / NAME
        document = to_document(self) | {"checkpoint": str(self.checkpoint), "scratch": str(self.scratch)}
        atomic_write(path, json.dumps(document, indent=1, sort_keys=True))
        return path


def load_spread(path: Path) -> SpreadEvaluation:
    """Read the document. Raises `SpecError` for a file that is none."""
    try:
        return from_document(SpreadEvaluation, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: expected what `actwright cluster evaluate` wrote, got {error}. Fix: run that command again") from error


def share_of(groups: Sequence[Group], index: int, pods: int) -> list[Group]:
    """The groups of one pod: tasks come in turn, so each pod has a part of every task."""
    return list(groups[index::pods])
