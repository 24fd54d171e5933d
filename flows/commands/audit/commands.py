"""`actwright audit ...`: prove what a workcell recorded, look at one decision, ask the policy the same question again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal.output import HELD, say, tell

if TYPE_CHECKING:
    from components.release.bundle import PackedPolicy
    from model_core.spec.audit.reading import AuditFile, AuditRecord
    from model_core.spec.types import RequestPolicy

audit_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What workcells recorded: list, prove, look at a decision.")

NOT_PROVEN = HELD
AuditPath = Annotated[Path, typer.Argument(help="an audit file, such as audit/cell-1/000012-button-7.mcap", metavar="FILE", exists=True)]


@audit_app.command("list")
def list_command(
    folder: Annotated[Path, typer.Argument(help="the folder given to `workcell run --audit`", exists=True, file_okay=False)],
) -> None:
    """List the recorded episodes of a folder, oldest first, from their Parquet index.

    Example: actwright audit list audit
    """
    from components.deployment.audit_replay import list_audits

    rows = list_audits(folder)
    for row in rows:
        how = "solved" if row["success"] else (row["outcome"] or "torn").replace("_", " ")
        seal = "" if row["sealed"] else ", not sealed"
        lost = f", {row['lost_records']} records lost" if row["lost_records"] else ""
        say(
            f"{row['path']}  {row['cell']}  {row['episode_id']}  {how}, {row['t']:.1f} s, {row['decisions']} decisions, "
            f"{row['executed']} commands, {row['model_version']}{seal}{lost}"
        )
    if rows:
        say(f"then try  actwright audit replay {rows[-1]['path']}")
    shown = ("path", "cell", "episode_id", "success", "decisions", "executed", "model_version", "contract_id", "sealed", "tip")
    tell(episodes=[{name: row[name] for name in shown} for row in rows])


@audit_app.command("verify")
def verify_command(
    paths: Annotated[list[Path], typer.Argument(help="audit files, or folders of them", metavar="FILE...", exists=True)],
    tip: Annotated[str, typer.Option(help="the last hash (or its first digits) as it was written down elsewhere")] = "",
) -> None:
    """Prove that nothing in audit files was changed, left out or moved: every record carries the SHA-256 of the one before.

    Exits 0 when everything is proven, 3 when not, naming the first record that is missing or wrong. Of a folder, the link from file to
    file is proven too. A hash chain holds no key: who can rewrite whole files can forge them, except past a hash that is known from
    elsewhere (--tip, or the file after it).

    Example: actwright audit verify audit/cell-1/000012-button-7.mcap
    Example: actwright audit verify audit
    """
    from model_core.spec.audit.reading import read_audit

    files = [file for path in paths for file in (sorted(path.rglob("[0-9]*-*.mcap")) if path.is_dir() else [path])]
    if not files:
        raise typer.BadParameter(f"no audit files (*.mcap) under {', '.join(map(str, paths))}")
    found = [read_audit(file) for file in files]
    whole = [path for path in paths if path.is_dir()]
    problems = {str(one.path): one.problem for one in found if one.problem} | _broken_links(found, whole)
    gone = _only_in_the_index(whole)
    if tip and not any(one.tip.startswith(tip.lower()) for one in found):
        problems[str(found[-1].path)] = f"its last hash is {found[-1].tip[:16]}, not {tip[:16]}"
    for one in found:
        problem = problems.get(str(one.path), "")
        thinned = f", {one.missing_frames} frames given up for room" if one.missing_frames else ""
        what = f"{len(one.records)} records, {len(one.frames)} frames{thinned}"
        say(f"{one.path}: {'NOT PROVEN: ' + problem + '; good so far: ' if problem else 'proven: '}{what}, last hash {one.tip[:16]}")
    for path in gone:
        say(f"{path}: NOT PROVEN: the index lists it, and the file is not there")
    tell(
        proven=not problems and not gone,
        files=[_verdict(one, problems.get(str(one.path), "")) for one in found],
        missing=[str(path) for path in gone],
    )
    if problems or gone:
        raise typer.Exit(NOT_PROVEN)


@audit_app.command("replay")
def replay_command(
    file: AuditPath,
    decision: Annotated[int, typer.Option(help="which one, from 1; -1 is the last", metavar="N")] = 1,
    bundle: Annotated[
        Path | None, typer.Option(help="ask this policy again: a bento, a bundle or a checkpoint (default: the packed one of this home)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where the picture goes (default: beside FILE)", metavar="PNG")] = None,
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="ask the policy again, or only look")] = True,
    every: Annotated[
        bool, typer.Option("--all", help="ask every decision of the file again; the picture is of the first that differs")
    ] = False,
) -> None:
    """Show a recorded decision as a picture, and ask the same policy the same question again.

    The picture has the camera with the trace that was said, the depth decoded by the codec that the contract names, and the actions as
    answered and as executed. Exits 3 when the policy answers otherwise than it did.

    Example: actwright audit replay audit/cell-1/000012-button-7.mcap --decision 3
    Example: actwright audit replay audit/cell-1/000012-button-7.mcap --all
    Example: actwright audit replay audit/cell-1/000012-button-7.mcap --decision -1 --bundle serve/champion/bundle --out look.png
    """
    from components.deployment.audit_replay import ask_all, open_packed, pick_decision, view_of
    from components.drawing.decision import draw_decision
    from components.drawing.images import save_png
    from model_core.spec.audit.reading import read_audit
    from model_core.spec.errors import SpecError

    found = read_audit(file)
    if found.problem:
        say(f"careful: {file} is not proven: {found.problem}")
    try:
        record = pick_decision(found, decision)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    packed = _packed(found, bundle)
    policy = open_packed(packed, found) if ask and packed is not None else None
    tallied: dict[str, Any] = {}
    if every and policy is not None:
        tallied = ask_all(found, policy)
        decision = tallied["first_differing"] or decision
        record = pick_decision(found, decision)
        lost = f"; {tallied['without_frames']} have lost their frames" if tallied["without_frames"] else ""
        say(f"all       {tallied['equal']} of {tallied['asked']} decisions asked again give the same answer{lost}")
    compared, verdict = _asked_again(found, record, packed, policy) if ask else ({"asked_again": False}, "not asked again")
    codebooks = [packed.codebook] if packed is not None else []
    picture = save_png(draw_decision(view_of(found, record, codebooks, verdict)), out or _beside(file, decision))
    say(f"picture   {picture}")
    say(f"answer    {verdict}")
    body = record.body
    ids = {name: body.get(name) for name in ("episode_id", "session_id", "epoch", "seq", "outcome")}
    tell(
        picture=str(picture),
        decision=decision,
        record=record.n,
        proven=found.is_proven,
        **ids,
        **compared,
        **({"all": tallied} if tallied else {}),
    )
    if compared.get("equal") is False:
        raise typer.Exit(HELD)


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
    told = {
        "asked_again": True,
        "equal": same.is_equal,
        "depth_tokens_differing": same.depth_differing,
        "trace_values_differing": same.trace_differing,
        "max_action_difference": same.max_action_difference,
        "timing_ms": dict(again.timing_ms),
        "bundle": str(packed.bundle or packed.checkpoint),
        "same_bundle": packed.digest == str(found.records[0].body.get("bundle_digest", "")),
    }
    if not told["same_bundle"]:
        say("note      this is not the very bundle that the episode ran with (another digest), but its contract is the same")
    if same.is_equal and same.detail:
        return told, same.detail
    if same.is_equal:
        return told, f"asked again, {packed.model_version or packed.checkpoint} gives the same answer: every token and action is equal"
    differing = (
        f"{same.depth_differing} depth tokens, {same.trace_differing} trace values, actions by up to {same.max_action_difference:.3g}"
    )
    return told, f"asked again, the answer DIFFERS: {same.detail or differing}"


def _packed(found: AuditFile, folder: Path | None) -> PackedPolicy | None:
    from components.release.bundle import find_packed

    if folder is not None:
        return find_packed(folder)
    from flows.pipeline.model_lookup import policies_here
    from flows.platform.settings import load_settings

    told = found.records[0].body if found.records else {}
    here = [one for one in policies_here(load_settings()) if one.model_version == told.get("model_version")]
    here = [one for one in here if one.manifest.get("contract_id") == told.get("contract_id")]
    return next((one for one in here if one.digest == told.get("bundle_digest")), here[0] if here else None)


def _broken_links(found: list[AuditFile], whole: list[Path]) -> dict[str, str]:
    """Files whose first record names another last hash of the file before than that file has. Files of one folder are one chain.

    whole: folders that were given as such, so that the file before must be there; of files that were picked, the first may lack it.
    """
    tips = {one.path: one.tip for one in found}
    broken = {}
    for one in found:
        before = one.records[0].body.get("before", {}) if one.records else {}
        named = one.path.parent / str(before.get("file", ""))
        if before.get("file") and named in tips and tips[named] != before.get("tip"):
            broken[str(one.path)] = f"it follows {named.name} with last hash {str(before.get('tip'))[:16]}, which has {tips[named][:16]}"
        elif before.get("file") and named not in tips and (_lies_in(one.path, whole) or one is not _first_of(found, one.path.parent)):
            broken[str(one.path)] = f"it follows {named.name}, which is not there"
    return broken


def _first_of(found: list[AuditFile], folder: Path) -> AuditFile:
    return min((one for one in found if one.path.parent == folder), key=lambda one: one.path.name)


def _lies_in(path: Path, folders: list[Path]) -> bool:
    return any(folder in path.parents for folder in folders)


def _only_in_the_index(folders: list[Path]) -> list[Path]:
    """Audit files that an index tells of and that are not there."""
    told = sorted(path for folder in folders for path in folder.rglob("index/[0-9]*-*.parquet"))
    files = [path.parents[1] / f"{path.stem}.mcap" for path in told]
    return [file for file in files if not file.exists()]


def _verdict(one: AuditFile, problem: str) -> dict[str, Any]:
    return {
        "file": str(one.path),
        "proven": not problem,
        "problem": problem,
        "broken_at": one.broken_at,
        "records": len(one.records),
        "frames": len(one.frames),
        "frames_given_up": one.missing_frames,
        "tip": one.tip,
    }


def _beside(file: Path, decision: int) -> Path:
    return file.with_name(f"{file.stem}-decision-{decision}.png")
