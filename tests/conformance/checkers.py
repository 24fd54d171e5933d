"""Public checkers of LeRobot folders look at sets that we recorded and took in: no defect, and a reason for each warning.

They run in an environment of their own, as programs. What they report as worse than a remark is compared with `REASONS`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.conformance.checked_sets import make_sets
from tests.conformance.data_sets import check

# checker -> (pattern of a warning, why it is expected). docs/conformance.md is written from this table.
REASONS: dict[str, tuple[tuple[str, str], ...]] = {
    "lerobot-doctor": (
        (r"% of values at (minimum|maximum)", "a gripper is told one of two values, and the arm of the recorded set moves at full speed"),
        (r"observation\.state\[6\]: stuck/static|action\[6\]: stuck/static", "a gripper that is open until the end is no stuck actuator"),
        (r"privileged\.tcp_position", "our own column of the tool centre is zero where none is known, and flat for an arm in a plane"),
        (
            r"action\[0\]: zero variance|stats\.json\[action\]: 1 dimension",
            "the recorded arm has no gripper to close: its action is constant",
        ),
        (r"shorter than (20 frames|chunk_size)|too short|episode\(s\) flagged", "the sets are small on purpose, with episodes of a second"),
    ),
    "robot-data-audit": (
        (
            r"video_timestamp_alignment",
            "a film of n frames is n / fps long, its first and last row (n - 1) / fps apart: more than 5 % of an episode below 21 frames",
        ),
        (r"idle_ratio", "idleness is read from how actions change: a steady delta action, which moves the arm steadily, counts as idle"),
        (r"visual_quality", "an image of 64 x 48 pixels that LeRobot's own encoding has blurred"),
    ),
    "rdq": ((r"'observation\.state' has short glitches", "the recorded arm's gripper goes to its one opening at its first step"),),
    "deepen-grade": (
        (r"joint_limit_saturation", "a gripper stands at an end of its range, which is what grippers do"),
        (r"trajectory_consistency|endpoint_agreement", "goals are drawn at random, so that ends and ways of episodes differ"),
        (r"cross\.duplicates", "short reaches to neighbouring goals are alike; the seeds and frames of the episodes differ"),
    ),
}


def checks(python: Path) -> Iterator[dict[str, Any]]:
    """Two checks for each checker and set: no defect, and no warning without a reason."""
    with TemporaryDirectory() as folder:
        sets = make_sets(Path(folder) / "sets")
        for name, run in RUNS.items():
            for label, root in sets.items():
                report = Path(folder) / f"{name}-{label}.json"
                defects, warnings = run(python.parent, root, report)
                yield check(f"{name}: no defect in the set {label}", not defects, "; ".join(defects)[:500])
                strange = [w for w in warnings if not any(re.search(pattern, w) for pattern, _ in REASONS[name])]
                known = f"{len(warnings)} with a reason"
                yield check(f"{name}: every warning of the set {label} has a reason", not strange, "; ".join(strange)[:500] or known)


Found = tuple[list[str], list[str]]  # defects, warnings


def _doctor(programs: Path, root: Path, report: Path) -> Found:
    report.write_text(_run([programs / "lerobot-doctor", "check", root, "--json"]))
    lines = [(m["severity"], f"{c['name']}: {m['message']}") for c in _document(report)["checks"] for m in c["messages"]]
    return [text for level, text in lines if level in ("FAIL", "ERROR")], [text for level, text in lines if level == "WARN"]


def _audit(programs: Path, root: Path, report: Path) -> Found:
    _run([programs / "rda", "audit", root, "--full", "--output", report])
    document = _document(report)
    defects = [f"episode {number} is excluded" for number in document["summary"]["exclude_episodes"]]
    warnings = [
        f"{name}: {metric['message']}"
        for one in document["episodes"]
        if one["verdict"] != "PASS"
        for name, metric in one["metrics"].items()
        if metric["assessment"]["status"] == "review"
    ]
    return defects, warnings


def _rdq(programs: Path, root: Path, report: Path) -> Found:
    _run([programs / "rdq", "check", root, "--json", report, "--video"])
    findings = _document(report)["findings"]
    return tuple([f["message"] for f in findings if f["severity"] == level] for level in ("critical", "warning"))  # type: ignore[return-value]


def _deepen(programs: Path, root: Path, report: Path) -> Found:
    """Its defects move the grade; its findings of training value are told beside it, whatever they are called."""
    report.write_text(_run([programs / "deepen", "grade", root, "--json", "--quiet"]))
    document = _document(report)
    defects = [f"{name}: {found['defective']} episodes" for name, found in document["defect_classes"].items() if found["defective"]]
    defects += [] if document["overall"]["grade"] == "A" else [f"grade {document['overall']['grade']}"]
    told = {name: found["counts"] for name, found in document["training_value"].items()}
    return defects, [f"{name}: {counts}" for name, counts in told.items() if counts.get("warn") or counts.get("fail")]


RUNS: dict[str, Callable[[Path, Path, Path], Found]] = {
    "lerobot-doctor": _doctor,
    "robot-data-audit": _audit,
    "rdq": _rdq,
    "deepen-grade": _deepen,
}


def _run(command: list[Any]) -> str:
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ACTWRIGHT"))} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900, check=False, env=settings)
    if not done.stdout and done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with code {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


def _document(report: Path) -> Any:
    text = report.read_text()
    return json.loads(text[text.index("{") :])
