"""The table of injected faults: every fault on the kinds of sets that can have it, the rules that named it, and what sound sets got.

Run: .venv/bin/python -m tests.data_faults.table [--seeds 4] [--most-kinds 9]     writes benchmarks/results/inspection.json
     .venv/bin/python -m tests.data_faults.table --peers-only                     compares its rows again with what other tools said

A fault is found where a rule that is expected to name it reports a defect or a risk that it does not report of the sound set. A blind fault
(its author has not seen the rules) is found where any rule does. A false alarm is a rule that reports a sound set. What other tools find
stands in benchmarks/results/inspection_peers.json (`tests.data_faults.peers_table`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.config.records import Silent
from components.data.inspection.checks.verdict import DEFECT, RISK
from components.data.inspection.reporting.inspect import inspect_folder
from components.data.inspection.reporting.report import InspectionReport, all_checks
from tests.data_faults.clean_sets import KINDS, clean_set
from tests.data_faults.faults import InjectedFault, all_faults
from tests.data_faults.interface import BlindFault, NotApplicable, blind_faults
from tests.data_faults.made_set import write_made_set

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "inspection.json"
PEERS = RESULT.with_name("inspection_peers.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault on one kind of set. named: the rules that reported it and not the sound set."""

    fault: str
    family: str
    kind: str
    report: str = ""
    expected: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def is_found(self) -> bool:
        """Whether an expected rule, or for a blind fault any rule, named it."""
        return bool(set(self.expected) & set(self.named)) if self.expected else bool(self.named)


def inspect(folder: Path) -> InspectionReport:
    """The report of a folder, nothing kept."""
    return inspect_folder(folder, None, Silent())


def told(report: InspectionReport) -> set[tuple[str, str]]:
    """(rule, place) of every defect and risk. Places carry the folder's name, so it is taken off."""
    found = [r for outcome in (DEFECT, RISK) for r in report.of(outcome)]
    return {(r.check.id, fault.where.removeprefix(report.name)) for r in found for fault in r.verdict.faults}


def inject(fault: InjectedFault, kind: str, root: Path, seed: int = 0) -> Path:
    """A set of this kind with the fault."""
    rng = np.random.default_rng([5, seed])
    made = clean_set(kind, seed)
    if fault.change is not None:
        return write_made_set(root, fault.change(made, rng))
    write_made_set(root, made)
    if fault.damage is not None:
        fault.damage(root, rng)
    return root


def rows_of(faults: Iterable[InjectedFault], kinds: Sequence[str], *, most_kinds: int = 9) -> list[Row]:
    """Inject every fault into up to `most_kinds` kinds, and inspect."""
    sound = {kind: told_of_sound(kind) for kind in kinds}
    rows: list[Row] = []
    for fault in faults:
        for kind in [kind for kind in fault.kinds if kind in sound][:most_kinds]:
            with tempfile.TemporaryDirectory() as folder:
                root = inject(fault, kind, Path(folder) / "set")
                rows.append(_row(fault.name, fault.family, kind, root, sound[kind], fault))
    return rows


def blind_rows(faults: Iterable[BlindFault], kinds: Sequence[str], *, most_kinds: int = 9) -> list[Row]:
    """The same for the faults of blind authors, on every kind that can have them."""
    sound = {kind: told_of_sound(kind) for kind in kinds}
    rows: list[Row] = []
    for fault in faults:
        done = 0
        for kind in kinds:
            if done == most_kinds:
                break
            with tempfile.TemporaryDirectory() as folder:
                root = write_made_set(Path(folder) / "set", clean_set(kind))
                try:
                    fault.inject(root, 0)
                except NotApplicable:
                    continue
                rows.append(_row(fault.name, "blind", kind, root, sound[kind], None))
                done += 1
    return rows


def told_of_sound(kind: str, seed: int = 0) -> set[tuple[str, str]]:
    """What is reported of the sound set."""
    with tempfile.TemporaryDirectory() as folder:
        return told(inspect(write_made_set(Path(folder) / "set", clean_set(kind, seed))))


def _row(name: str, family: str, kind: str, root: Path, sound: set[tuple[str, str]], fault: InjectedFault | None) -> Row:
    named = sorted({rule for rule, _ in told(inspect(root)) - sound})
    report, expected = (fault.report, fault.expected) if fault else ("", ())
    return Row(fault=name, family=family, kind=kind, report=report, expected=expected, named=tuple(named))


def false_alarms(kinds: Sequence[str], seeds: int) -> dict[str, Any]:
    """Rules that report sound sets of other seeds, over all rules that had evidence there."""
    told_by: dict[str, int] = {}
    judged = sets = told_sets = 0
    for kind in kinds:
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                report = inspect(write_made_set(Path(folder) / "set", clean_set(kind, seed)))
            names = {rule for rule, _ in told(report)}
            judged += sum(result.verdict.looked_at > 0 for result in report.results)
            sets += 1
            told_sets += bool(names)
            for name in names:
                told_by[name] = told_by.get(name, 0) + 1
    return {"sets": sets, "sets_reported": told_sets, "verdicts": judged, "false": sum(told_by.values()), "by_rule": told_by}


def document(rows: Sequence[Row], blind: Sequence[Row], alarms: dict[str, Any]) -> dict[str, Any]:
    """The committed form."""
    return {
        "what": "injected faults found by the rules of `actwright data inspect` and by other tools, and false alarms on sound sets",
        "run": ".venv/bin/python -m tests.data_faults.table",
        "rules": len(all_checks()),
        "faults": len({row.fault for row in rows}),
        "faults_of_public_reports": len({row.fault for row in rows if row.report}),
        "injections": len(rows),
        "recall": _share([row.is_found for row in rows]),
        "recall_of_public_reports": _share([row.is_found for row in rows if row.report]),
        "recall_of_blind": _share([row.is_found for row in blind]),
        "blind_injections": len(blind),
        "peers": beside_peers([*rows, *blind]),
        "false_alarm_rate": round(alarms["false"] / max(alarms["verdicts"], 1), 4),
        "false_alarms": alarms,
        "rows": [_line(row) for row in (*rows, *blind)],
    }


def _line(row: Row) -> dict[str, Any]:
    known: dict[str, Any] = {"fault": row.fault, "family": row.family, "set": row.kind, "found": row.is_found, "named": list(row.named)}
    return known | ({"report": row.report} if row.report else {})


def _kept_rows(lines: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows of the committed form; which rules were expected is read from the faults."""
    known = {fault.name: fault for fault in all_faults()}
    return [
        Row(
            fault=line["fault"],
            family=line["family"],
            kind=line["set"],
            report=line.get("report", ""),
            expected=known[line["fault"]].expected if line["fault"] in known else (),
            named=tuple(line["named"]),
        )
        for line in lines
    ]


def beside_peers(rows: Sequence[Row], path: Path = PEERS) -> dict[str, Any]:
    """Of the faults that other tools were asked about: how many they find and we do, on the same set, and which only one side finds."""
    if not path.is_file():
        return {}
    answers = json.loads(path.read_text())
    reported = {(row["fault"], row["set"]): set(row["reported"]) for row in answers["rows"]}
    asked = [row for row in rows if (row.fault, row.kind) in reported]
    return {
        "versions": answers["versions"],
        "faults_asked": len(asked),
        "recall_of_ours": _share([row.is_found for row in asked]),
        "recall": {name: _share([name in reported[row.fault, row.kind] for row in asked]) for name in answers["versions"]},
        "by_origin": {
            origin: {"faults": len(rows), "ours": _share([row.is_found for row in rows])}
            | {name: _share([name in reported[row.fault, row.kind] for row in rows]) for name in answers["versions"]}
            for origin, rows in _origins(asked).items()
        },
        "sound_sets": len(answers["sound"]),
        "sound_sets_reported": {name: sum(bool(said.get(name)) for said in answers["sound"].values()) for name in answers["versions"]},
        "found_by_a_peer_and_not_by_us": {
            row.fault: sorted(reported[row.fault, row.kind]) for row in asked if reported[row.fault, row.kind] and not row.is_found
        },
        "found_by_us_alone": sorted(row.fault for row in asked if row.is_found and not reported[row.fault, row.kind]),
    }


def _origins(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Faults of a blind author, those that follow a public report, and the others; only what there is."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault("blind" if not row.expected else "public report" if row.report else "own", []).append(row)
    return found


def _share(flags: Sequence[bool]) -> float | None:
    return round(sum(flags) / len(flags), 4) if flags else None


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="sound sets of each kind for the false alarms")
    parser.add_argument("--most-kinds", type=int, default=9, help="kinds of sets that each fault is injected into, at most")
    parser.add_argument("--peers-only", action="store_true", help="inspect nothing: only the comparison with other tools is made again")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.peers_only:
        kept = json.loads(args.out.read_text())
        args.out.write_text(json.dumps(kept | {"peers": beside_peers(_kept_rows(kept["rows"]))}, indent=1) + "\n")
        return
    rows = rows_of(all_faults(), list(KINDS), most_kinds=args.most_kinds)
    blind = blind_rows(blind_faults(), list(KINDS), most_kinds=args.most_kinds)
    made = document(rows, blind, false_alarms(list(KINDS), args.seeds))
    args.out.write_text(json.dumps(made, indent=1) + "\n")
    lines = [json.dumps({name: value for name, value in made.items() if name not in ("rows", "false_alarms")})]
    lines += [f"not found: {row.fault} on {row.kind}: expected {row.expected}, named {row.named}" for row in rows if not row.is_found]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
