"""The options of `actwright bench decode` and `actwright certify`: one dataclass for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

CheckpointFolder = Annotated[Path | None, typer.Argument(help="a checkpoint folder; default: the newest trained one", metavar="CHECKPOINT")]
RecordingFile = Annotated[
    Path | None, typer.Option("--recording", help="observations of closed-loop rollouts; default: recorded now, and kept", metavar="FILE")
]
RecipeName = Annotated[str, typer.Option(help="recipe whose simulator and tasks are recorded where there is no recording")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16")]
Threads = Annotated[int, typer.Option(min=1, help="threads of torch")]
Sessions = Annotated[int, typer.Option(min=2, max=64, help="sessions that are decoded together in one round")]
Embodiment = Annotated[str, typer.Option(help="whose policy, where the checkpoint acts for several embodiments", metavar="NAME")]
OnlyJson = Annotated[bool, typer.Option("--json", help="only one JSON line, no table")]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What `actwright bench decode` measures, and where the result goes."""

    checkpoint: CheckpointFolder = None
    embodiment: Embodiment = ""
    recording: RecordingFile = None
    recipe: RecipeName = "loop"
    decisions: Annotated[int, typer.Option(min=2, help="how many decisions our engine answers")] = 200
    peer_decisions: Annotated[int, typer.Option(min=2, help="how many of them the peers answer too")] = 50
    dtype: Dtype = "float32"
    threads: Threads = 1
    sessions: Sessions = 16
    out: Annotated[Path | None, typer.Option(help="result file; default: benchmarks/results/decode.json")] = None
    picture: Annotated[Path | None, typer.Option(help="plot of where the time goes; default: docs/pictures/decision_time.png")] = None
    only_json: OnlyJson = False

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyOptions:
    """What `actwright certify` compares, and where the certificate goes."""

    checkpoint: CheckpointFolder = None
    embodiment: Embodiment = ""
    recording: RecordingFile = None
    recipe: RecipeName = "loop"
    decisions: Annotated[int, typer.Option(min=1, help="how many decisions are compared")] = 2_000
    dtype: Dtype = "float32"
    threads: Threads = 1
    sessions: Sessions = 16
    faithful: Annotated[bool, typer.Option("--faithful", help="over all ids of the head, not only those of the grammar")] = False
    out: Annotated[Path | None, typer.Option(help="the certificate; default: certificate-DTYPE.json in the working directory")] = None
    only_json: OnlyJson = False

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)

    @property
    def target(self) -> Path:
        """The certificate's file."""
        return self.out or Path(f"certificate-{self.dtype}.json")


def _check_dtype(dtype: str) -> None:
    if dtype not in ("float32", "bfloat16"):
        raise typer.BadParameter(f"--dtype must be float32 or bfloat16, got {dtype}")
