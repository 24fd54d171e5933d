"""How long the gate thinks: 500 decisions on 60 pairs of each of two tasks, against 500 exact tests of the same pairs by scipy.

Both sides answer the same question of each pair of policies; where the fixed test (McNemar, all pairs, one look) shows a candidate to be
worse, the gate must not promote it.
Run: python benchmarks/gate_decisions.py      writes benchmarks/results/gate_decisions.json
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "gate_decisions.json"
DECISIONS, PAIRS, ALPHA = 500, 60, 0.05


def main() -> None:
    from scipy.stats import binomtest

    from components.config.judging.gate_config import GateConfig
    from components.evaluation.gate import gate
    from tests.unit.test_gate_pairs import both

    bar = GateConfig()
    rates = ((0.95, 0.9), (0.9, 0.9), (0.6, 0.95), (0.8, 0.7))
    reports = [both(*rates[n % len(rates)], range(PAIRS), (n, n + 1)) for n in range(DECISIONS)]
    gate(bar, *reports[0])  # tables that are made once
    began = time.process_time()
    outcomes = [gate(bar, candidate, champion).outcome for candidate, champion in reports]
    ours_s = time.process_time() - began
    began = time.process_time()
    worse = []
    for candidate, champion in reports:
        by_case = {(row.task, row.seed): row.success for row in champion.episodes}
        wins = sum(row.success and not by_case[row.task, row.seed] for row in candidate.episodes)
        losses = sum(not row.success and by_case[row.task, row.seed] for row in candidate.episodes)
        worse.append(wins + losses > 0 and binomtest(losses, wins + losses, 0.5, alternative="greater").pvalue < ALPHA / 10)
    scipy_s = time.process_time() - began
    promoted = [is_worse for outcome, is_worse in zip(outcomes, worse, strict=True) if outcome == "promote"]
    if any(promoted):
        raise SystemExit(f"{sum(promoted)} candidates were promoted that the fixed test shows to be worse")
    result = {
        "decisions": DECISIONS,
        "pairs": 2 * PAIRS,
        "gate_processor_s": round(ours_s, 3),
        "scipy_mcnemar_processor_s": round(scipy_s, 3),
        "ratio": round(ours_s / scipy_s, 2),
        "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
