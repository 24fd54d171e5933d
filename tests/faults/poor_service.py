"""As `bundle_service`, but a model version that ends in /3 refuses every decision: -m tests.faults.poor_service BUNDLE PORT [CANDIDATE]."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from model_core.bundle import read_manifest
from model_core.spec.types import Decision, Refusal, RefusalCode
from tests.faults.bundle_service import main


def refused(decision: Decision) -> Decision:
    """The decision of a model whose answers are not in its language."""
    return replace(decision, chunk=None, reasoning=None, refusal=Refusal(code=RefusalCode.PARSE, reason="a poor version"))


def change_of(folder: Path) -> Callable[[Decision], Decision] | None:
    """What becomes of the decisions of the bundle in a folder."""
    return refused if read_manifest(folder).model_version.endswith("/3") else None


if __name__ == "__main__":
    bundle = Path(sys.argv[1])
    main(bundle, int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None, change_of(bundle))
