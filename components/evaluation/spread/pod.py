"""One pod of a spread evaluation: `python -m components.evaluation.spread.pod DOCUMENT PODS INDEX`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from components.config.records import Silent
from components.evaluation.evaluate import run_groups
from components.evaluation.spread.document import load_spread, share_of
from model_core.spec.errors import ActwrightError, SpecError


def run_share(document: Path, index: int, pods: int) -> int:
    """Run the groups of pod `index` that are not finished yet; returns how many groups are its."""
    spread = load_spread(document)
    if not 0 <= index < pods:
        told = f"number of the pod: expected 0 to {pods - 1}, got {index}"
        raise SpecError(f"{told}. Fix: run this as an Indexed Job of {pods} completions")
    mine = share_of(spread.groups(), index, pods)
    run_groups(spread.exam(), mine, Silent())
    return len(mine)


def main() -> int:
    """The program."""
    logging.basicConfig(level=logging.INFO)
    try:
        count = run_share(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[2]))
    except ActwrightError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    logging.getLogger(__name__).info("evaluation.share_done groups=%d", count)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
