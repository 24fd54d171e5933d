"""What other packages compute of the same tables and studies; run by benchmarks/sequential_tests.py in an environment of their own.

In: JSON on standard input, "rates" [[k, n]], "pairs" [[both, wins, losses, neither]], "two" [[a, m, b, n]], "p" [[...]], "studies" of pair
differences. Out: JSON, package.function -> an answer for each. Packages: fieldtrial 0.3.0, robostats 0.2.0, physim-gate 0.4.0.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
from fieldtrial.stats.compare import newcombe_interval
from fieldtrial.stats.confseq import capital_process
from fieldtrial.stats.multiplicity import adjust_pvalues
from fieldtrial.stats.paired import mcnemar_exact, tango_interval
from physim_gate.stats import newcombe_counts
from robostats.intervals import clopper_pearson, wilson


def pair_of(interval) -> list[float]:
    low = getattr(interval, "low", None) if hasattr(interval, "low") else getattr(interval, "lower", None)
    high = getattr(interval, "high", None) if hasattr(interval, "high") else getattr(interval, "upper", None)
    return list(interval) if isinstance(interval, tuple) else [low, high]


def rejected_at(differences, alpha: float) -> int:
    """The pair after which fieldtrial's anytime test rejects "not better"; 0 for never."""
    capital = capital_process((np.asarray(differences, float) + 1) / 2, 0.5, alpha, "greater")
    over = np.flatnonzero(capital > 1 / alpha)
    return int(over[0]) + 1 if len(over) else 0


def main() -> None:
    given = json.load(sys.stdin)
    found = {
        "robostats.clopper_pearson": [pair_of(clopper_pearson(k, n)) for k, n in given["rates"]],
        "robostats.wilson": [pair_of(wilson(k, n)) for k, n in given["rates"]],
        "fieldtrial.tango_interval": [list(tango_interval(w, lo, b + w + lo + n)) for b, w, lo, n in given["pairs"]],
        "fieldtrial.mcnemar_exact": [[mcnemar_exact(w, lo, alternative="greater").pvalue] for _, w, lo, _ in given["pairs"]],
        "fieldtrial.newcombe_interval": [pair_of(newcombe_interval(a, m, b, n)) for a, m, b, n in given["two"]],
        "physim_gate.newcombe_counts": [list(newcombe_counts(b, n, a, m, 0.95)) for a, m, b, n in given["two"]],
        "fieldtrial.adjust_pvalues": [list(adjust_pvalues(p, method="holm").adjusted) for p in given["p"]],
        "rejected_at": {name: [rejected_at(study, 0.05) for study in studies] for name, studies in given["studies"].items()},
        "versions": {name: version(name) for name in ("fieldtrial", "robostats", "physim-gate")},
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
