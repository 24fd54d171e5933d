"""Words that are not the plain international English of this project, counted in its code and documents.

Run: .venv/bin/python -m tests.architecture.words             (prints how often each file has one of them)
     .venv/bin/python -m tests.architecture.words --shrink    (records smaller counts, and takes out files that have none any more)
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path

from tests.architecture.budgets import ROOMS, ROOT

WORDS = {
    "the mind": "the model core",
    "whoever": "the caller, the client, ...",
    "anew": "again",
    "learnt": "learned, trained",
    "spelt": "spelled",
    "nobody": "no client, no person, not ...",
}
_WORDS = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", flags=re.IGNORECASE)
RECORDED = Path(__file__).with_name("words.json")


def count(text: str) -> int:
    """How many of the words the text has; parts of longer words do not count."""
    return len(_WORDS.findall(text))


@cache
def counts() -> dict[str, int]:
    """File -> how many of the words it has, of the product's code and the documents that describe it."""
    documents = [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))]
    paths = [*(path for room in ROOMS for path in (ROOT / room).rglob("*.py")), *documents]
    found = {path.relative_to(ROOT).as_posix(): count(path.read_text(encoding="utf-8")) for path in sorted(paths)}
    return {name: number for name, number in found.items() if number}


def recorded() -> dict[str, int]:
    """File -> how many of the words it may still have."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    if "--shrink" in sys.argv[1:]:
        smaller = {name: min(number, counts()[name]) for name, number in recorded().items() if name in counts()}
        RECORDED.write_text(json.dumps(smaller, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    else:
        sys.stdout.write(json.dumps(counts(), indent=1, sort_keys=True) + "\n")
