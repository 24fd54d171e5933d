"""What the long forms of tests took and how they ended: reports/soak.xml -> benchmarks/results/soak.json.

Run: make soak, or .venv/bin/python -m tests.soak_report after it; with reports/soak.xml and the files of later runs as arguments, what was
run again (after a mend) stands as it ended then, and says so.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from model_core.spec.files import atomic_write

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"


def report(xml: str, *later: str) -> dict[str, object]:
    """The document of a junit file: every test with its end and seconds, the longest first.

    later: files of runs of some tests, which replace those of the first and are marked `again`; tests that are new there are added.
    """
    suite = next(ET.fromstring(xml).iter("testsuite"))
    rows = {row["test"]: row for row in _rows(xml)}
    for one in later:
        rows |= {row["test"]: {**row, "again": True} for row in _rows(one)}
    tests = list(rows.values())
    return {
        "run": "make soak",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "date": str(suite.get("timestamp"))[:10],
        "seconds": round(float(suite.get("time", 0))),
        "ends": {end: sum(test["end"] == end for test in tests) for end in ("passed", "failed", "skipped")},
        "tests": sorted(tests, key=lambda test: -float(str(test["seconds"]))),
    }


def _rows(xml: str) -> list[dict[str, object]]:
    return [
        {"test": f"{case.get('classname')}::{case.get('name')}", "end": _end(case), "seconds": round(float(case.get("time", 0)), 1)}
        for case in next(ET.fromstring(xml).iter("testsuite")).iter("testcase")
    ]


def _end(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]] or [ROOT / "reports" / "soak.xml"]
    atomic_write(RESULT, json.dumps(report(*(file.read_text(encoding="utf-8") for file in files)), indent=1) + "\n")
    sys.stdout.write(f"written to {RESULT.relative_to(ROOT)}\n")
