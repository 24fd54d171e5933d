"""What the long forms of tests took and how they ended: reports/soak.xml -> benchmarks/results/soak.json.

Run: make soak, or .venv/bin/python -m tests.soak_report after it
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


def report(xml: str) -> dict[str, object]:
    """The document of one junit file: every test with its end and seconds, the longest first."""
    suite = next(ET.fromstring(xml).iter("testsuite"))
    tests = [
        {"test": f"{case.get('classname')}::{case.get('name')}", "end": _end(case), "seconds": round(float(case.get("time", 0)), 1)}
        for case in suite.iter("testcase")
    ]
    return {
        "run": "make soak",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "date": str(suite.get("timestamp"))[:10],
        "seconds": round(float(suite.get("time", 0))),
        "ends": {end: sum(test["end"] == end for test in tests) for end in ("passed", "failed", "skipped")},
        "tests": sorted(tests, key=lambda test: -float(str(test["seconds"]))),
    }


def _end(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


if __name__ == "__main__":
    atomic_write(RESULT, json.dumps(report((ROOT / "reports" / "soak.xml").read_text(encoding="utf-8")), indent=1) + "\n")
    sys.stdout.write(f"written to {RESULT.relative_to(ROOT)}\n")
