"""`actwright bench ...` and `actwright certify`: how fast decisions are decoded here, and the proof that speed changed none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.bench.options import BenchOptions, CertifyOptions, Embodiment
from flows.commands.options import from_options
from flows.terminal.output import HELD, print_result

bench = typer.Typer(
    help="Measure decoding: record what a policy sees, then time its decisions. `actwright certify` proves that no token differs.\n\n"
    "Example: actwright bench record seen.npz --decisions 2000\n\nExample: actwright bench decode --recording seen.npz",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.command("decode")
@from_options(BenchOptions)
def bench_decode(options: BenchOptions) -> None:
    """Time one decision: transformers' generate, its prompt lookup, a plain loop and our engine in turn, tokens compared.

    Exits 3 when tokens differ.

    Example: actwright bench decode
    Example: actwright bench decode runs/mine/checkpoint --recording seen.npz --json
    """
    from components.evaluation.decoding.benchmark_document import headline
    from flows.commands.bench import runs
    from flows.commands.bench.tables import show_bench

    folder = runs.chosen_checkpoint(options.checkpoint, options.embodiment)
    progress = runs.PlainProgress("bench", quiet=options.only_json)
    found = runs.chosen_recording(options.recording, folder, options.decisions + runs.REMEMBERED, options.recipe, progress)
    document = runs.bench_decode(folder, found, options, progress)
    if not options.only_json:
        show_bench(document)
    print_result(**headline(document))
    if not document["tokens_equal"]:
        raise typer.Exit(HELD)


@bench.command("record")
def bench_record(
    file: Annotated[Path, typer.Argument(help="the recording to write (.npz)", metavar="FILE")],
    checkpoint: Annotated[Path | None, typer.Option(help="a checkpoint folder; default: the newest trained one")] = None,
    decisions: Annotated[int, typer.Option(min=1, help="how many decisions")] = 2_000,
    recipe: Annotated[str, typer.Option(help="recipe whose simulator and tasks are driven")] = "loop",
    embodiment: Embodiment = "",
) -> None:
    """Run a policy in the simulator and record every observation that it decided on, for `bench decode` and `certify`.

    Example: actwright bench record seen.npz --decisions 200
    """
    from flows.commands.bench import runs

    progress = runs.PlainProgress("record", quiet=False)
    print_result(**runs.record(file, runs.chosen_checkpoint(checkpoint, embodiment), decisions, recipe, progress))


@from_options(CertifyOptions)
def certify(options: CertifyOptions) -> None:
    """Prove that speculative decoding changes nothing: every recorded decision plain and speculative, alone and with 16 sessions together.

    Exits 3 on any flip (a token that differs).

    Example: actwright certify --decisions 2000
    Example: actwright certify runs/mine/checkpoint --recording seen.npz --decisions 2000 --dtype bfloat16
    """
    from flows.commands.bench import runs
    from flows.commands.bench.tables import show_certificate
    from model_core.spec.documents import to_document

    folder = runs.chosen_checkpoint(options.checkpoint, options.embodiment)
    progress = runs.PlainProgress("certify", quiet=options.only_json)
    found = runs.chosen_recording(options.recording, folder, options.decisions, options.recipe, progress)
    made = runs.certify(folder, found, options, progress)
    if not options.only_json:
        show_certificate(made)
    document = to_document(made)
    named = ("flips", "decisions", "tokens", "guards", "acceptance", "forwards", "model_digest")
    print_result(certificate=str(options.target), **{name: document[name] for name in named})
    if made.flips:
        raise typer.Exit(HELD)


def add_bench(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(bench, name="bench")
    app.command()(certify)
