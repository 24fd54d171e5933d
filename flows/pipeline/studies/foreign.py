"""Two results of vla-eval as a study: their episodes, paired, stand in a ledger and are judged by the gate's tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from components.artifacts.files import sha256_file
from components.config.judging.verdict import GateVerdict
from components.config.recipe import GateConfig
from components.evaluation.judging.comparison import by_scene, unlike_rules
from components.evaluation.studies.evidence import design_of, record_study
from components.evaluation.studies.judge import judged
from components.evaluation.studies.ledger import Ledger
from components.evaluation.suites.foreign import VOID_RULE
from flows.pipeline.stages.suite import taken_in
from flows.platform.wiring import Platform
from model_core.spec.errors import SpecError, require

Evaluated = tuple[Path, Path]  # the file that vla-eval wrote, and the checkpoint that answered


def foreign_study(platform: Platform, cfg: GateConfig, sides: Mapping[str, Evaluated]) -> tuple[Path, GateVerdict, Ledger]:
    """Record and judge the episodes that both were run on. sides: of "candidate" and "champion". The design says that it came after them.

    Raises `SpecError` for a file that is none of vla-eval, for one policy as both, and for evaluations of other trials.
    """
    candidate, champion = (taken_in(*sides[side]) for side in ("candidate", "champion"))
    require(
        candidate.checkpoint_digest != champion.checkpoint_digest,
        "candidate and champion are one checkpoint; expected two different ones. Fix: name the policy that each file is of",
        got=candidate.checkpoint_digest[:12],
    )
    pairs = by_scene(candidate).keys() & by_scene(champion).keys()
    unlike = unlike_rules(candidate, champion) or (() if pairs else ("no episode is in both",))
    if unlike:
        raise SpecError(
            f"the two results are of other trials (champion -> candidate): {'; '.join(unlike)}. Fix: run vla-eval with one configuration "
            "for both policies"
        )
    design = replace(design_of(cfg, candidate, champion), void_rule=VOID_RULE, evaluated_before=True)
    evidence = [sha256_file(sides[side][0]) for side in ("candidate", "champion")]
    folder, ledger = record_study(platform.settings.home / "studies", design, [((candidate, evidence[0]), (champion, evidence[1]))])
    return folder, judged(design, ledger.trials, planned=len(pairs), is_last=True), ledger
