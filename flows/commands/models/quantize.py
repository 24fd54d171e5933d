"""`actwright model quantize`: the int8 copy of a checkpoint, with a report of how it answers beside the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.evaluation.decoding.int8_report import Int8Report
    from model_core.port.int8_copy import Int8Copy
    from model_core.spec.types import Observation

UNREADABLE = 2
_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """Of what the copy is made, where it goes, and on what the two are compared."""

    source: Annotated[Path, typer.Argument(help="a checkpoint folder: ours, or an adopted one in the published layout", metavar="SRC")]
    destination: Annotated[Path, typer.Argument(help="a folder without weights; its name is the model's name", metavar="DST")]
    recording: Annotated[
        Path | None, typer.Option(help="compare on these recorded observations (`actwright bench record`); default: seeded noise images")
    ] = None
    decisions: Annotated[int, typer.Option(help="decisions that both answer; at most those of the recording", min=1)] = 16
    embodiment: Annotated[str, typer.Option(help="which one, where the checkpoint was trained for several", metavar="NAME")] = ""


@from_options(QuantizeOptions)
def quantize_command(options: QuantizeOptions) -> None:
    """Write a copy of a checkpoint with int8 weights, for a CPU, and report how its answers differ from the original's.

    Weights of linear layers are rounded to int8 with one scale for each output; activations stay float32. The copy is another model: it
    has its own folder and digests, and is served, probed and packed like any other. The report (int8_report.json, in its folder) says how
    many answers are equal token for token, how many choices differ along the original's answers, how far logits and actions move, and
    what size and time are. Nothing is judged: read it, then let the copy be evaluated. Exits 2 where SRC cannot be read.

    Example: actwright model quantize models/mine models/mine-int8 --recording seen.npz --decisions 100
    """
    from model_core.port.int8_copy import keep_report, write_int8
    from model_core.spec.errors import ActwrightError

    try:
        observations, where = _observations(options)
        made = write_int8(options.source, options.destination, embodiment=options.embodiment)
        report = _compared(options, made, observations, where)
        kept = keep_report(options.destination, report.text())
    except ActwrightError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNREADABLE) from error
    _show(options, made, report)
    print_result(
        folder=str(options.destination),
        report=str(kept),
        int8_weights=len(made.rounded),
        notes=list(made.notes),
        **{name: getattr(report, name) for name in ("decisions", "answered", "answers_equal", "choices", "choices_different")},
        **{name: getattr(report, name) for name in ("logit_rms", "logit_rms_error", "logit_max_error", "action_max_error")},
        bytes=dict(report.bytes),
        decision_ms=dict(report.decision_ms),
    )


def _observations(options: QuantizeOptions) -> tuple[Sequence[Observation], str]:
    """What both are asked about, and a sentence that says where it came from. Read before anything is written."""
    from components.evaluation.observation_recording import load_recording
    from components.release.package import probe_observations
    from model_core.contracts import chosen_contract, read_contracts

    contract = chosen_contract(read_contracts(options.source), options.embodiment, options.source)
    if options.recording is None:
        return probe_observations(contract, options.decisions, None), "seeded noise images"
    recording = load_recording(options.recording)
    chosen = recording.first(min(options.decisions, len(recording)))
    return [seen.observation for seen in chosen], f"recorded: {options.recording.name}"


def _compared(options: QuantizeOptions, made: Int8Copy, observations: Sequence[Observation], where: str) -> Int8Report:
    from components.artifacts.step_manifest import checkpoint_digest
    from components.config.records import Silent
    from components.evaluation.decoding.int8_report import ReportFacts, compare_int8

    facts = ReportFacts(
        source_digest=checkpoint_digest(options.source),
        observations=where,
        bytes={"original": made.source_bytes, "int8": made.bytes},
        embodiment=options.embodiment,
    )
    return compare_int8(options.source, options.destination, observations, facts, Silent())


def _show(options: QuantizeOptions, made: Int8Copy, report: Int8Report) -> None:
    before, after = report.bytes["original"], report.bytes["int8"]
    for note in made.notes:
        print_line(f"note      {note}")
    print_line(f"written   {options.destination}: {len(made.rounded)} weights as int8, {before / _MB:.1f} MB -> {after / _MB:.1f} MB")
    print_line(
        f"compared  {report.answered} of {report.decisions} decisions ({report.observations}): {report.answers_equal} answers equal; along "
        f"the original's answers {report.choices_different} of {report.choices} choices differ"
    )
    print_line(
        f"logits    differ by {report.logit_rms_error:.3g} (RMS; theirs is {report.logit_rms:.3g}), at most {report.logit_max_error:.3g}"
    )
    print_line(
        f"time      a decision {report.decision_ms['original']:.0f} ms -> {report.decision_ms['int8']:.0f} ms (one thread, no drafts)"
    )
    print_line(f"then try  actwright serve {options.destination}")
