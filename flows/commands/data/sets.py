"""`actwright data list | show | diff`: which data sets there are, what one is made of, and in what two of them differ."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.data.edit_options import SET, SetName
from flows.commands.data.progress_lines import ProgressLines
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.editing.catalogue import Catalogue, OpenSet
    from components.data.editing.difference import Difference, EpisodeDifference

_SHOWN = 20  # lines of one kind, of a comparison


def list_sets() -> None:
    """List every data set that has a name here: edits with who made them and why, what DVC keeps, and raw sets that were taken in.

    Example: actwright data list
    """
    from flows.pipeline.data_sets import listed
    from flows.platform.wiring import open_platform

    found = listed(open_platform())
    for line in found:
        known = [line["digest"][:12], line.get("version", "")]
        made = f"  from {', '.join(line['parents'])}; {line['who']}, {line['when']}: {line['why']}" if line["parents"] else ""
        print_line(f"{line['name']:<28} {line['kind']:<12} {' '.join(word for word in known if word)}{made}")
    if not found:
        print_line("no data set has a name here yet; make one: actwright data select FOLDER --episodes 0:50 --as NAME --why REASON")
    print_result(sets=found)


def show(
    data_set: SetName,
    episodes: Annotated[bool, typer.Option("--episodes", help="also a line for every episode")] = False,
    interventions: Annotated[bool, typer.Option("--interventions", help="also in which frames of which episode a person acted")] = False,
) -> None:
    """Show what a data set is made of: episodes, frames, tasks, rate, cameras, and its lineage down to the folders it begins with.

    Example: actwright data show recordings/pick
    Example: actwright data show pick-clean --episodes
    Example: actwright data show recordings/pick --interventions
    """
    from flows.pipeline.data_sets import catalogue
    from flows.platform.wiring import open_platform

    known = catalogue(open_platform().settings)
    opened = known.open(data_set)
    rows = opened.source.rows
    told = _facts(opened)
    for name in ("episodes", "frames", "control_hz", "robot", "state", "action"):
        print_line(f"{name:<11} {told[name]}")
    for camera, size in told["cameras"].items():
        print_line(f"camera      {camera}: {f'{size[1]} x {size[0]} pixels' if size else 'size not stated'}")
    for task, count in told["tasks"].items():
        print_line(f"task        {count} x {task!r}")
    print_line(f"outcome     {', '.join(f'{count} {name}' for name, count in told['outcomes'].items())}")
    for line in _lineage(known, opened):
        print_line(line)
    if episodes:
        for row in rows:
            outcome = {True: "solved", False: "failed", None: "unknown"}[row.success]
            print_line(f"{row.index:>5} {row.episode_id:<32} {row.length:>6} frames  {outcome:<8} {row.instruction}")
    if interventions:
        told |= _interventions(opened)
    opened.source.close()
    print_result(**told, lineage=[{**asdict(step), "edit": step.edit.operation if step.edit else None} for step in known.lineage(opened)])


def diff(
    a: Annotated[str, typer.Argument(help=f"the one version: {SET}", metavar="A")],
    b: Annotated[str, typer.Argument(help="the other version", metavar="B")],
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="whether every image is compared, or only numbers and labels")
    ] = True,
) -> None:
    """Say which episodes, frames, labels and tasks differ between two versions, by contents and never by names or paths.

    Example: actwright data diff pick-monday pick
    Example: actwright data diff data/collect exports/pick --no-images
    """
    from components.data.editing.difference import difference
    from flows.pipeline.data_sets import open_sets
    from flows.platform.wiring import open_platform

    one, other = open_sets(open_platform(), [a, b])
    found = difference(one.source, other.source, images=images, progress=ProgressLines())
    for line in _difference_lines(found):
        print_line(line)
    print_result(**asdict(found), is_equal=found.is_empty)


def _facts(opened: OpenSet) -> dict[str, Any]:
    from components.data.editing.description import describe

    rows, described = opened.source.rows, describe(opened.source)
    tasks: dict[str, int] = {}
    outcomes = {"solved": 0, "failed": 0, "unknown": 0}
    for row in rows:
        tasks[row.instruction] = tasks.get(row.instruction, 0) + 1
        outcomes[{True: "solved", False: "failed", None: "unknown"}[row.success]] += 1
    return {
        "name": opened.source.name,
        "digest": opened.digest,
        "episodes": len(rows),
        "frames": sum(row.length for row in rows),
        "control_hz": described.control_hz,
        "robot": described.robot,
        "is_described": described.embodiment is not None,
        "state": ", ".join(described.state),
        "action": ", ".join(described.action),
        "cameras": dict(described.cameras),
        "tasks": tasks,
        "outcomes": outcomes,
    }


def _interventions(opened: OpenSet) -> dict[str, Any]:
    """Print where a person acted; gives it for the result."""
    from components.data.lerobot.columns.interventions import acted_in

    found = acted_in(opened.source)
    stated = [one for one in found if one.spans is not None]
    for one in stated:
        if one.spans:
            where = ", ".join(f"{first}-{end - 1}" if end - first > 1 else f"{first}" for first, end in one.spans)
            print_line(f"person      {one.episode_id}: {one.frames} of {one.length} frames ({where})")
    frames, total = sum(one.frames for one in stated), sum(one.length for one in stated)
    acted = sum(bool(one.spans) for one in stated)
    print_line(f"person      acted in {acted} of {len(stated)} episodes, {frames} of {total} frames")
    if len(stated) < len(found):
        print_line(f"person      {len(found) - len(stated)} episodes do not say whether one acted")
    episodes = [{"episode": one.episode_id, "frames": one.frames, "spans": one.spans} for one in found]
    return {"interventions": {"episodes": episodes, "frames": frames, "not_stated": len(found) - len(stated)}}


def _lineage(known: Catalogue, opened: OpenSet) -> list[str]:
    lines: list[str] = []
    for step in known.lineage(opened):
        said = f"{step.edit.operation}, {step.edit.who}, {step.edit.when}: {step.edit.why}" if step.edit else "as it was recorded"
        lines.append(f"lineage     {'  ' * step.depth}{step.name} {step.digest[:12]}  {said}")
        if step.edit and step.edit.operation == "repair":
            lines += [f"            {'  ' * step.depth}given up: {what}" for what in step.edit.parameters.get("given_up", ())]
    return lines


def _difference_lines(found: Difference) -> list[str]:
    compared = "frames, images and labels" if found.images else "numbers and labels (no images)"
    lines = [f"{found.equal} episodes are equal in {compared}"]
    lines += [f"description: {line}" for line in found.description]
    for name, ids in (("A", found.only_a), ("B", found.only_b)):
        lines += _short([f"only in {name}: {one}" for one in ids])
    lines += _short([f"differs: {_said(one)}" for one in found.differing])
    for name, tasks in (("A", found.tasks_only_a), ("B", found.tasks_only_b)):
        lines += _short([f"task only in {name}: {task!r}" for task in tasks])
    return lines


def _said(one: EpisodeDifference) -> str:
    parts = [f"{name} {a!r} -> {b!r}" for name, (a, b) in one.labels.items()]
    if one.kept:
        parts.append(f"B has only frames {one.kept[0]} to {one.kept[1] - 1} of it")
    parts += [
        f"{count} frames differ in {name}" if name != "length" else f"{count} frames more or less" for name, count in one.changed.items()
    ]
    where = ", ".join(f"{first}-{end - 1}" if end - first > 1 else f"{first}" for first, end in one.frames[:5])
    return f"{one.a}{'' if one.a == one.b else f' ({one.b} in B)'}: {'; '.join(parts)}{f' (frames {where})' if where else ''}"


def _short(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"... and {len(lines) - _SHOWN} more"]
