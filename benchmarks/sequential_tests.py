"""Wrong claims and mean trials of the tests that compare two policies, beside fixed-n McNemar, naive peeking and other packages.

Every test is one-sided at 5 % and of the claim "the candidate is better". The peer of the targets is a fixed design of 231 pairs, which
has a power of 0.8 at 70 against 80 %. Columns: share of studies that made the claim, mean pairs until the study ended as a share of 231.
With --peers, intervals and p values are compared with those of fieldtrial, robostats and physim-gate, and fieldtrial's anytime test
runs on the same studies. With --planned-looks only the group-sequential test runs, and what is recorded of the others stays.
With --by-calculation the probability of its wrong claims is calculated, given which pairs differ, in place of counted.

Run: python benchmarks/sequential_tests.py [--studies 20000] [--peers PYTHON] [--planned-looks | --by-calculation]
Writes benchmarks/results/sequential_tests.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, written  # noqa: E402
from model_core.statistics import intervals as exact  # noqa: E402
from model_core.statistics.betting import BettingDesign, betting_test  # noqa: E402
from model_core.statistics.binomial import probabilities  # noqa: E402
from model_core.statistics.decision import Outcome  # noqa: E402
from model_core.statistics.group_sequential import GroupSequentialDesign, looks  # noqa: E402
from model_core.statistics.multiplicity import holm  # noqa: E402
from model_core.statistics.planning import largest_correlation, outcomes_of_studies, paired_outcomes  # noqa: E402
from model_core.statistics.two_streams import TrialBlock, stream_test  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "sequential_tests.json"
PEER = ROOT / "benchmarks" / "peers" / "policy_statistics.py"
FIXED = 231
ANYTIME = BettingDesign(maximum=300)
GROUP = GroupSequentialDesign(looks=tuple(range(1, 345)), shape=2.5, spending="gamma")
RATES = (0.05, 0.2, 0.5, 0.7, 0.9, 0.97)
CORRELATIONS = (0.0, 0.5, 0.8)
DIFFERENCES = (0.10, 0.15, 0.20)
STAGES = 4


def rejections(wins, losses):
    """Whether exact McNemar rejects, for arrays of counts; shape as they have."""
    most = int((wins + losses).max())
    least = np.array([next(k for k in range(n + 2) if k > n or probabilities(n, 0.5)[k:].sum() <= 0.05) for n in range(most + 1)])
    return wins >= least[wins + losses]


def fixed(studies):
    part = studies[:, :FIXED]
    return rejections((part == 1).sum(axis=1), (part == -1).sum(axis=1)), np.full(len(studies), FIXED)


def peeking(studies):
    """McNemar's exact test after every 10 pairs, stopped at the first p below 5 %: what must not be done."""
    looks = np.arange(9, FIXED, 10)
    wins, losses = (np.cumsum(studies[:, :FIXED] == side, axis=1)[:, looks] for side in (1, -1))
    over = rejections(wins, losses)
    return over.any(axis=1), np.where(over.any(axis=1), looks[over.argmax(axis=1)] + 1, FIXED)


def sequential(design):
    def decided(studies):
        outcome, pairs = outcomes_of_studies(studies[:, : design.maximum], design)
        return outcome == 1, pairs

    return decided


TESTS: dict[str, Callable] = {"fixed_231": fixed, "peeking": peeking, "anytime": sequential(ANYTIME), "group_sequential": sequential(GROUP)}


def row(test, studies) -> dict[str, float]:
    shown, pairs = TESTS[test](studies)
    return summed(shown, pairs)


def summed(shown, pairs) -> dict[str, float]:
    return {"claimed": round(float(np.mean(shown)), 4), "pairs": round(float(np.mean(pairs)) / FIXED, 3), "studies": len(shown)}


def drawn(candidate, champion, correlation, count, seed):
    return paired_outcomes(candidate, champion, correlation, (count, GROUP.maximum), np.random.default_rng(seed))


def staged(early: float, last: float, count: int, rng):
    """Stage scores and successes: three early stages that the sides differ in, and a last one that is luck for both."""
    steps = rng.random((count, 300, STAGES)) < np.array([early, early, early, last])
    reached = np.cumprod(steps, axis=2).sum(axis=2)
    return reached / STAGES, (reached == STAGES).astype(float)


def partial_credit(count: int) -> dict[str, object]:
    """The anytime test on stage scores and on success alone, of the same rollouts."""
    rng, found = np.random.default_rng(11), {}
    sides = [staged(early, 0.75, count, rng) for early in (0.85, 0.93)]
    for name, kind in (("stage_scores", 0), ("success", 1)):
        decided = [betting_test(study, ANYTIME) for study in sides[1][kind] - sides[0][kind]]
        shown = np.mean([one.outcome is Outcome.SHOWN for one in decided])
        found[name] = {"claimed": round(float(shown), 3), "pairs": round(float(np.mean([one.pairs for one in decided])) / FIXED, 3)}
    found["success_rates"] = [round(float(side[1].mean()), 3) for side in sides]
    found["ratio_of_pairs"] = round(found["stage_scores"]["pairs"] / found["success"]["pairs"], 2)
    return found


def streams(rate: float, difference: float, count: int):
    """Successes of candidate and champion in blocks of one trial each, in four strata (two tasks at two sites) around the base rate."""
    strata = rate + np.resize((-0.1, 0.1, -0.05, 0.05), GROUP.maximum)
    draws = np.random.default_rng(7).random((2, count, GROUP.maximum))
    return (draws[0] < strata + difference).astype(np.int8), (draws[1] < strata).astype(np.int8)


def unpaired(count: int, tests: tuple[str, ...] = ("anytime", "planned_looks")) -> list[dict[str, object]]:
    """The anytime test of two streams, and planned looks at the differences of blocks, whose signs are fair coins under equal rates."""
    found = []
    for base, difference in [(0.7, 0.0), (0.3, 0.0), (0.7, 0.1), (0.7, 0.15), (0.7, 0.2)]:
        rows = {}
        if "planned_looks" in tests:
            candidate, champion = streams(base, difference, 5 * count)
            rows["planned_looks"] = summed(*TESTS["group_sequential"](candidate - champion))
        if "anytime" in tests:
            rows["anytime"] = summed(*of_streams(*streams(base, difference, count)))
        found.append({"champion": base, "difference": difference, **rows})
    return found


def of_streams(candidate, champion):
    """The anytime test of two streams on each study."""
    decided = [
        stream_test(
            [
                TrialBlock(stratum=str(i % 4), candidate=(float(mine),), champion=(float(theirs),))
                for i, (mine, theirs) in enumerate(zip(ours, others, strict=True))
            ],
            maximum=300,
        )
        for ours, others in zip(candidate[:, :300], champion[:, :300], strict=True)
    ]
    return np.array([one.outcome is Outcome.SHOWN for one in decided]), np.array([one.pairs for one in decided])


def oracles(python: str) -> dict[str, object]:
    """Largest distance between our numbers and those of the peers, and fieldtrial's anytime test on the same studies as ours."""
    rng = np.random.default_rng(3)
    rates = [(int(rng.integers(0, n + 1)), int(n)) for n in rng.integers(1, 200, 100)]
    pairs = [tuple(map(int, rng.integers(1, 31, 4))) for _ in range(100)]
    two = [(*rates[i], *rates[99 - i]) for i in range(100)]
    p = rng.random((20, 6)).tolist()
    studies = {f"{d:.2f}/{c}": drawn(0.7 + d, 0.7, c, 400, 5)[:, : ANYTIME.maximum] for d in (0.0, *DIFFERENCES) for c in (0.0, 0.5)}
    given = {"rates": rates, "pairs": pairs, "two": two, "p": p, "studies": {name: found.tolist() for name, found in studies.items()}}
    done = subprocess.run([python, str(PEER)], input=json.dumps(given), capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    counts = [exact.PairCounts(both=b, wins=w, losses=lo, neither=n) for b, w, lo, n in pairs]
    ours = {
        "robostats.clopper_pearson": [exact.clopper_pearson(*one) for one in rates],
        "robostats.wilson": [exact.wilson(*one) for one in rates],
        "fieldtrial.tango_interval": [exact.tango(one) for one in counts],
        "fieldtrial.mcnemar_exact": [(exact.mcnemar(one),) for one in counts],
        "fieldtrial.newcombe_interval": [exact.newcombe(*one) for one in two],
        "physim_gate.newcombe_counts": [exact.newcombe(*one) for one in two],
    }
    adjusted = [holm({str(i): value for i, value in enumerate(one)}) for one in p]
    ours["fieldtrial.adjust_pvalues"] = [[one[str(i)] for i in range(len(one))] for one in adjusted]
    distance = {name: float(np.abs(np.array(found) - np.array(theirs[name])).max()) for name, found in ours.items()}
    table = {}
    for name, found in studies.items():
        at = np.array(theirs["rejected_at"][name])
        shown, used = TESTS["anytime"](found)
        table[name] = {
            "fieldtrial": {"claimed": round(float((at > 0).mean()), 3), "pairs": round(float(np.where(at > 0, at, 300).mean() / FIXED), 3)},
            "ours": {"claimed": round(float(shown.mean()), 3), "pairs": round(float(used.mean() / FIXED), 3)},
        }
    return {"largest_distance": distance, "anytime_on_the_same_studies": table, "versions": theirs["versions"]}


def by_rates(tests, studies: int) -> dict[str, list[dict[str, object]]]:
    """Wrong claims at equal rates, and power at a champion's rate of 70 %. Beside others, planned looks have a fifth: they take longest."""
    counts = {test: studies // 5 if test == "group_sequential" and len(tests) > 1 else studies for test in tests}
    alike = [
        {"rate": rate, "correlation": c, **{test: row(test, drawn(rate, rate, c, counts[test], 1)) for test in tests}}
        for rate in RATES
        for c in CORRELATIONS
    ]
    power = [
        {
            "difference": d,
            "correlation": round(min(c, largest_correlation(0.7, 0.7 + d)), 3),
            **{test: row(test, drawn(0.7 + d, 0.7, c, studies, 2)) for test in tests},
        }
        for c in CORRELATIONS
        for d in DIFFERENCES
    ]
    return {"wrong_claims": alike, "power_at_70": power}


def calculated(rates: tuple[float, ...], correlations: tuple[float, ...], studies: int) -> list[dict[str, object]]:
    """The probability that planned looks at equal rates claim too much, without the noise of counting: which pairs differ is drawn, what
    their signs do is calculated by the test itself (`Look.spent`). Mean over the drawn studies with its standard error, and the most."""
    found = []
    for rate in rates:
        for correlation in correlations:
            spent = np.array([list(looks(one, GROUP))[-1].spent for one in drawn(rate, rate, correlation, studies, 13)])
            mean, error = float(spent.mean()), float(spent.std() / np.sqrt(studies))
            told = {"mean": round(mean, 5), "standard_error": round(error, 5), "most": round(float(spent.max()), 5), "studies": studies}
            found.append({"rate": rate, "correlation": correlation, **told})
    return found


def renewed(recorded: dict, studies: int) -> dict[str, object]:
    """The recorded result with the group-sequential test run again."""
    fresh = {**by_rates(("group_sequential",), studies), "unpaired": unpaired(studies // 4, ("planned_looks",))}
    return recorded | {name: [old | new for old, new in zip(recorded[name], rows, strict=True)] for name, rows in fresh.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000, help="of each cell; the unpaired anytime test has a twentieth of them")
    parser.add_argument("--peers", default="", help="the Python of an environment with the other packages")
    parser.add_argument("--planned-looks", action="store_true", help="run the group-sequential test alone")
    parser.add_argument(
        "--by-calculation", action="store_true", help="calculate its wrong claims alone, for a four hundredth of the studies"
    )
    options = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()
    if options.planned_looks:
        result = renewed(json.loads(RESULT.read_text(encoding="utf-8")), options.studies)
        when = {"planned_looks_run": conditions(load, started)}
    elif options.by_calculation:
        cells = calculated(RATES, CORRELATIONS, options.studies // 400)
        result = json.loads(RESULT.read_text(encoding="utf-8")) | {"planned_looks_wrong_claims_calculated": cells}
        when = {"calculated_run": conditions(load, started)}
    else:
        few = options.studies // 20
        result = {**by_rates(TESTS, options.studies), "partial_credit": partial_credit(few), "unpaired": unpaired(few)}
        result |= {"peers": oracles(options.peers)} if options.peers else {}
        when = conditions(load, started)
    most = {test: max(one[test]["claimed"] for one in result["wrong_claims"]) for test in TESTS}
    written({**result, "most_wrong_claims": most, **when}, RESULT)


if __name__ == "__main__":
    main()
