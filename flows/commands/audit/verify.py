"""`actwright audit verify`: the hash chain inside each audit file and from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal.output import HELD, print_line, print_result

if TYPE_CHECKING:
    from model_core.spec.audit.reading import AuditFile

NOT_PROVEN = HELD


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
    from components.artifacts.audit_files import read_audit

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
        print_line(f"{one.path}: {'NOT PROVEN: ' + problem + '; good so far: ' if problem else 'proven: '}{what}, last hash {one.tip[:16]}")
    for path in gone:
        print_line(f"{path}: NOT PROVEN: the index lists it, and the file is not there")
    print_result(
        proven=not problems and not gone,
        files=[_verdict(one, problems.get(str(one.path), "")) for one in found],
        missing=[str(path) for path in gone],
    )
    if problems or gone:
        raise typer.Exit(NOT_PROVEN)


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
    """Audit files that an index lists and that are not there."""
    listed = sorted(path for folder in folders for path in folder.rglob("index/[0-9]*-*.parquet"))
    files = [path.parents[1] / f"{path.stem}.mcap" for path in listed]
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
