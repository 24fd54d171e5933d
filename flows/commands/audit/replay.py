"""`actwright audit replay`: a recorded decision as an image, and the same request put to the same policy again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal.output import HELD, print_line, print_result

if TYPE_CHECKING:
    from components.release.bundle import PackedPolicy
    from model_core.spec.audit.reading import AuditFile, AuditRecord
    from model_core.spec.types import RequestPolicy

AuditPath = Annotated[Path, typer.Argument(help="an audit file, such as audit/cell-1/000012-button-7.mcap", metavar="FILE", exists=True)]


def replay_command(
    file: AuditPath,
    decision: Annotated[int, typer.Option(help="which one, from 1; -1 is the last", metavar="N")] = 1,
    bundle: Annotated[
        Path | None, typer.Option(help="ask this policy again: a bento, a bundle or a checkpoint (default: the packed one of this home)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where the drawing goes (default: beside FILE)", metavar="PNG")] = None,
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="ask the policy again, or only look")] = True,
    every: Annotated[bool, typer.Option("--all", help="ask every decision of the file again; the first that differs is drawn")] = False,
) -> None:
    """Draw a recorded decision, and put the same request to the same policy again.

    The drawing shows the camera image with the predicted trace, the depth decoded by the codec that the contract names, and the actions as
    answered and as executed. Exits 3 when the policy answers otherwise than it did.

    Example: actwright audit replay audit/cell-1/000012-button-7.mcap --decision 3
    Example: actwright audit replay audit/cell-1/000012-button-7.mcap --all
    Example: actwright audit replay audit/cell-1/000012-button-7.mcap --decision -1 --bundle serve/champion/bundle --out look.png
    """
    from components.artifacts.audit_files import read_audit
    from components.deployment.audit_view import view_of
    from components.drawing.decision import draw_decision
    from components.drawing.images import save_png

    found = read_audit(file)
    if found.problem:
        print_line(f"careful: {file} is not proven: {found.problem}")
    _picked(found, decision)  # a number that is none is wrong usage, before a policy is loaded
    packed = _packed(found, bundle)
    replayed = _replayed(found, packed, decision, every=every) if ask else Replayed(decision=decision)
    codebooks = [packed.codebook] if packed is not None else []
    record = _picked(found, replayed.decision)
    image = save_png(draw_decision(view_of(found, record, codebooks, replayed.verdict)), out or _beside(file, replayed.decision))
    print_line(f"image     {image}")
    print_line(f"answer    {replayed.verdict}")
    ids = {name: record.body.get(name) for name in ("episode_id", "session_id", "epoch", "seq", "outcome")}
    tally = {"all": replayed.tally} if replayed.tally else {}
    print_result(
        picture=str(image), decision=replayed.decision, record=record.n, proven=found.is_proven, **ids, **replayed.comparison, **tally
    )
    if replayed.comparison.get("equal") is False:
        raise typer.Exit(HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Which decision is shown, how the new answer compares, and the tally over the whole file where all were asked for."""

    decision: int
    verdict: str = "not asked again"
    comparison: Mapping[str, Any] = field(default_factory=lambda: {"asked_again": False})
    tally: Mapping[str, Any] = field(default_factory=dict)


def _replayed(found: AuditFile, packed: PackedPolicy | None, decision: int, *, every: bool) -> Replayed:
    """Put one decision, or all, to the policy again; of all, the first that differs is shown."""
    from components.deployment.audit_replay import ask_all, open_packed

    policy = open_packed(packed, found) if packed is not None else None
    tally: dict[str, Any] = {}
    if every and policy is not None:
        tally = ask_all(found, policy)
        decision = tally["first_differing"] or decision
        lost = f"; {tally['without_frames']} have lost their frames" if tally["without_frames"] else ""
        print_line(f"all       {tally['equal']} of {tally['asked']} decisions asked again give the same answer{lost}")
    comparison, verdict = _asked_again(found, _picked(found, decision), packed, policy)
    return Replayed(decision=decision, verdict=verdict, comparison=comparison, tally=tally)


def _picked(found: AuditFile, decision: int) -> AuditRecord:
    from components.deployment.audit_replay import pick_decision
    from model_core.spec.errors import SpecError

    try:
        return pick_decision(found, decision)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def _asked_again(
    found: AuditFile, record: AuditRecord, packed: PackedPolicy | None, policy: RequestPolicy | None
) -> tuple[dict[str, Any], str]:
    from components.deployment.audit_replay import ask_again
    from model_core.spec.errors import DatasetError

    if packed is None or policy is None:
        return {"asked_again": False}, "not asked again: no packed policy with this contract here; name one with --bundle"
    try:
        same, again = ask_again(found, record, policy)
    except DatasetError as error:
        return {"asked_again": False}, f"not asked again: {error}"
    comparison = {
        "asked_again": True,
        "equal": same.is_equal,
        "depth_tokens_differing": same.depth_differing,
        "trace_values_differing": same.trace_differing,
        "max_action_difference": same.max_action_difference,
        "timing_ms": dict(again.timing_ms),
        "bundle": str(packed.bundle or packed.checkpoint),
        "same_bundle": packed.digest == str(found.records[0].body.get("bundle_digest", "")),
    }
    if not comparison["same_bundle"]:
        print_line("note      this is not the very bundle that the episode ran with (another digest), but its contract is the same")
    if same.is_equal and same.detail:
        return comparison, same.detail
    if same.is_equal:
        return (
            comparison,
            f"asked again, {packed.model_version or packed.checkpoint} gives the same answer: all tokens and actions are equal",
        )
    differing = (
        f"{same.depth_differing} depth tokens, {same.trace_differing} trace values, actions by up to {same.max_action_difference:.3g}"
    )
    return comparison, f"asked again, the answer DIFFERS: {same.detail or differing}"


def _packed(found: AuditFile, folder: Path | None) -> PackedPolicy | None:
    from components.release.bundle import find_packed

    if folder is not None:
        return find_packed(folder)
    from flows.pipeline.model_lookup import policies_here
    from flows.platform.settings import load_settings

    begin = found.records[0].body if found.records else {}
    here = [one for one in policies_here(load_settings()) if one.model_version == begin.get("model_version")]
    here = [one for one in here if one.manifest.get("contract_id") == begin.get("contract_id")]
    return next((one for one in here if one.digest == begin.get("bundle_digest")), here[0] if here else None)


def _beside(file: Path, decision: int) -> Path:
    return file.with_name(f"{file.stem}-decision-{decision}.png")
