"""The time of one full decision against `transformers` generate, its prompt lookup and a plain loop, in one run, tokens asserted equal.

The same as `actwright bench decode`: sides answer recorded closed-loop observations in turn
(see `components.evaluation.decoding.benchmark`).
Run: python benchmarks/decode.py [CHECKPOINT] [--recording FILE] [--dtype bfloat16]      writes benchmarks/results/decode.json
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    from flows.commands.main import main as actwright

    sys.argv = ["actwright", "bench", "decode", *sys.argv[1:]]
    actwright()


if __name__ == "__main__":
    main()
