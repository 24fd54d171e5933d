"""A hundred quiet months of a fleet, and months with a change: false alarms, and how many trials pass until a change is noticed.

Each month has 6 pairs of cell and task, with a quiet time of 60 trials each and 300 watched ones, judged by the code of `actwright fleet
quality`. Acceptance: at most one of the hundred quiet months has an alarm (the stated budget is 1 %). The peer is a control chart: the mean
of 50 trials above that of the first 50 watched ones by three standard errors.

Run: python benchmarks/quality_months.py [--months 100]      writes benchmarks/results/quality_months.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "quality_months.json"
PAIRS, QUIET, WATCHED, SINCE = 6, 60, 300, 100


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--months", type=int, default=100)
    args = parser.parse_args()
    from benchmarks.measuring import conditions
    from components.deployment.quality.watch import WatchSettings, alarms_of, streams_of
    from tests.unit.test_quality import month

    started, load = perf_counter(), os.getloadavg()
    settings = WatchSettings(reference=QUIET, month=WATCHED)

    def fleet(seed: int, **change: float):
        rng = np.random.default_rng(seed)
        rows = []
        for pair in range(PAIRS):
            changed = change if pair == 0 else {}
            trials = month(rng, QUIET + WATCHED, since=QUIET + SINCE if changed else 10**9, **changed)
            rows += [_in(row, pair) for row in trials]
        return streams_of(rows, settings)

    false, chart = 0, 0
    for seed in range(args.months):
        streams = fleet(seed)
        false += bool(alarms_of(streams, settings))
        chart += _chart(streams)
    changes = {"success 90 % to 70 %": {"success": 0.7}, "success 90 % to 50 %": {"success": 0.5}, "predictions move by 1": {"shift": 1.0}}
    found = {}
    for name, change in changes.items():
        delays = []
        for seed in range(max(args.months // 5, 1)):
            alarms = [one for one in alarms_of(fleet(10_000 + seed, **change), settings) if one.cell == "cell-0"]
            delays.append(min((one.at - SINCE for one in alarms), default=None))
        noticed = [delay for delay in delays if delay is not None]
        found[name] = {"noticed": len(noticed), "of": len(delays), "median_trials": float(np.median(noticed)) if noticed else None}
    result = {
        "months": args.months, "streams_a_month": PAIRS * 7, "quiet_months_with_an_alarm": false,
        "peer_control_chart_quiet_months_with_an_alarm": chart, "changes": found, **conditions(load, started),
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if false <= max(1, args.months // 100) else 1


def _in(row, pair: int):
    from dataclasses import replace

    return replace(row, cell=f"cell-{pair}")


def _chart(streams) -> bool:
    """Whether the peer raises an alarm: the mean of 50 trials against the mean of the first 50 watched ones, three standard errors."""
    for stream in streams:
        values = np.array(stream.values, float)
        quiet, later = values[:50].mean(), values[50:]
        window = np.convolve(later, np.ones(50) / 50, "valid")
        if (window > quiet + 3 * np.sqrt(max(quiet * (1 - quiet), 0.01) / 50)).any():
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
