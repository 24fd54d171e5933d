"""What can be expected of a comparison, before its trials: by simulating it at the champion's own success rate."""

from __future__ import annotations

from collections.abc import Mapping

from components.config.recipe import GateConfig
from model_core.statistics.betting import BettingDesign
from model_core.statistics.planning import POWER, expected, minimum_detectable

CORRELATION = 0.5  # of success in a pair; what policies of one recipe have on the same scenes is usually above it
_STUDIES = 400


def plan_of(cfg: GateConfig, champion: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for each task of the champion: the chance that an equal candidate is shown not worse, the trials that it takes, and the
    smallest difference that is shown with a probability of 0.8. champion: task -> its success rate. Empty for a margin of 1, which permits
    every difference.
    """
    if cfg.margin >= 1.0:
        return ()
    return tuple(_sentence(cfg, task, rate) for task, rate in sorted(champion.items()))


def _sentence(cfg: GateConfig, task: str, rate: float) -> str:
    block = min(cfg.pairs_per_block, cfg.max_pairs)
    design = BettingDesign(margin=cfg.margin, alpha=cfg.alpha, maximum=cfg.max_pairs, block=block)
    alike = expected(design, rate, rate, correlation=CORRELATION, studies=_STUDIES)
    least = minimum_detectable(design, rate, correlation=CORRELATION, studies=_STUDIES)
    shown = f"a true difference of {least:+.2f} or more is shown" if least is not None else "no true difference is shown"
    return (
        f"{task}: the champion solves {rate:.0%}; if the candidate is as good (correlation of pairs {CORRELATION}), "
        f"{alike.shown:.0%} of such comparisons show it not worse by {cfg.margin:.2f}, after {alike.mean_pairs:.0f} pairs on average and "
        f"{cfg.max_pairs} at most, and {alike.not_enough:.0%} end without enough evidence; {shown} with a probability of {POWER}"
    )
