"""As `bundle_service`, but a model version that ends in /3 refuses every decision: python -m tests.faults.poor_service BUNDLE PORT."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from model_core.bundle import read_manifest
from model_core.spec.types import Decision, Refusal, RefusalCode
from tests.faults.bundle_service import main


def refused(decision: Decision) -> Decision:
    """The decision of a model whose answers are not in its language."""
    return replace(decision, chunk=None, reasoning=None, refusal=Refusal(code=RefusalCode.PARSE, reason="a poor version"))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    is_poor = read_manifest(folder).model_version.endswith("/3")
    main(folder, int(sys.argv[2]), refused if is_poor else None)
