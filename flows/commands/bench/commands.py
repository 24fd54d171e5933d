"""`actwright bench ...` and `actwright certify`: how fast decisions are decoded here, and the proof that speed changed none of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.output import HELD, tell

if TYPE_CHECKING:
    from flows.commands.bench.runs import Teller

bench = typer.Typer(
    help="Measure decoding: record what a policy sees, then time its decisions. `actwright certify` proves that no token differs.\n\n"
    "Example: actwright bench record seen.npz --decisions 2000\n\nExample: actwright bench decode --recording seen.npz",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CheckpointFolder = Annotated[Path | None, typer.Argument(help="a checkpoint folder; default: the newest trained one", metavar="CHECKPOINT")]
RecordingFile = Annotated[
    Path | None, typer.Option("--recording", help="observations of closed-loop rollouts; default: recorded now, and kept", metavar="FILE")
]
RecipeName = Annotated[str, typer.Option(help="recipe whose simulator and tasks are recorded where there is no recording")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16")]
Threads = Annotated[int, typer.Option(min=1, help="threads of torch")]
Sessions = Annotated[int, typer.Option(min=2, max=64, help="sessions that are decoded together in one round")]
OnlyJson = Annotated[bool, typer.Option("--json", help="only one JSON line, no table")]


@bench.command("decode")
def bench_decode(
    checkpoint: CheckpointFolder = None,
    recording: RecordingFile = None,
    recipe: RecipeName = "loop",
    decisions: Annotated[int, typer.Option(min=2, help="how many decisions ours answers")] = 200,
    peer_decisions: Annotated[int, typer.Option(min=2, help="how many of them the peers answer too")] = 50,
    dtype: Dtype = "float32",
    threads: Threads = 1,
    sessions: Sessions = 16,
    out: Annotated[Path | None, typer.Option(help="result file; default: benchmarks/results/decode.json")] = None,
    picture: Annotated[Path | None, typer.Option(help="where the time goes; default: docs/pictures/decision_time.png")] = None,
    only_json: OnlyJson = False,
) -> None:
    """Time one decision: transformers' generate, its prompt lookup, a plain loop and ours in turn, tokens compared.

    Exits 3 when tokens differ.

    Example: actwright bench decode
    Example: actwright bench decode runs/mine/checkpoint --recording seen.npz --json
    """
    from flows.commands.bench import runs

    _known_dtype(dtype)
    folder = runs.chosen_checkpoint(checkpoint)
    teller = runs.Teller("bench", quiet=only_json)
    found = runs.chosen_recording(recording, folder, decisions + runs.REMEMBERED, recipe, teller)
    document = runs.bench_decode(
        folder,
        found,
        teller,
        decisions=decisions,
        peer_decisions=peer_decisions,
        dtype=dtype,
        threads=threads,
        sessions=sessions,
        out=(out or runs.REPOSITORY / "benchmarks" / "results" / "decode.json"),
        picture=(picture or runs.REPOSITORY / "docs" / "pictures" / "decision_time.png"),
    )
    if not only_json:
        runs.show_bench(document)
    from components.evaluation.decoding.benchmark import headline

    tell(**headline(document))
    if not document["tokens_equal"]:
        raise typer.Exit(HELD)


@bench.command("record")
def bench_record(
    file: Annotated[Path, typer.Argument(help="the recording to write (.npz)", metavar="FILE")],
    checkpoint: Annotated[Path | None, typer.Option(help="a checkpoint folder; default: the newest trained one")] = None,
    decisions: Annotated[int, typer.Option(min=1, help="how many decisions")] = 2_000,
    recipe: Annotated[str, typer.Option(help="recipe whose simulator and tasks are driven")] = "loop",
) -> None:
    """Let a policy act in the simulator and keep every observation that it decided on, for `bench decode` and `certify`.

    Example: actwright bench record seen.npz --decisions 200
    """
    from flows.commands.bench import runs

    teller = _teller("record")
    tell(**runs.record(file, runs.chosen_checkpoint(checkpoint), decisions, recipe, teller))


def certify(
    checkpoint: CheckpointFolder = None,
    recording: RecordingFile = None,
    recipe: RecipeName = "loop",
    decisions: Annotated[int, typer.Option(min=1, help="how many decisions are compared")] = 2_000,
    dtype: Dtype = "float32",
    threads: Threads = 1,
    sessions: Sessions = 16,
    faithful: Annotated[bool, typer.Option("--faithful", help="over all ids of the head, not only those of the grammar")] = False,
    out: Annotated[Path | None, typer.Option(help="the certificate; default: certificate-DTYPE.json in the working directory")] = None,
    only_json: OnlyJson = False,
) -> None:
    """Prove that fast decoding changes nothing: every recorded decision plain and speculative, alone and with 16 sessions together.

    Exits 3 on any flip (a token that differs).

    Example: actwright certify --decisions 2000
    Example: actwright certify runs/mine/checkpoint --recording seen.npz --decisions 2000 --dtype bfloat16
    """
    from flows.commands.bench import runs
    from model_core.spec.documents import to_document

    _known_dtype(dtype)
    folder = runs.chosen_checkpoint(checkpoint)
    teller = runs.Teller("certify", quiet=only_json)
    found = runs.chosen_recording(recording, folder, decisions, recipe, teller)
    target = out or Path(f"certificate-{dtype}.json")
    asked = {"decisions": decisions, "dtype": dtype, "threads": threads, "sessions": sessions, "faithful": faithful}
    made = runs.certify(folder, found, teller, **asked, out=target)
    if not only_json:
        runs.show_certificate(made)
    told = to_document(made)
    named = ("flips", "decisions", "tokens", "guards", "acceptance", "forwards", "model_digest")
    tell(certificate=str(target), **{name: told[name] for name in named})
    if made.flips:
        raise typer.Exit(HELD)


def _teller(title: str) -> Teller:
    from flows.commands.bench.runs import Teller

    return Teller(title, quiet=False)


def _known_dtype(dtype: str) -> None:
    if dtype not in ("float32", "bfloat16"):
        raise typer.BadParameter(f"--dtype must be float32 or bfloat16, got {dtype}")
