"""`actwright data select | split | trim | relabel | merge`: edits as small files; the data they are made from stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.data.edit_options import SET, Name, Signed, Who, Why, pairs, signed
from flows.commands.data.edit_parameters import RelabelOptions, SelectOptions, SplitOptions, TrimOptions
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.editing.catalogue import OpenSet
    from flows.platform.wiring import Platform


@from_options(SelectOptions)
def select(options: SelectOptions) -> None:
    """Keep the episodes that fulfil every condition, or all others. Nothing is copied: the result is a small file that training can name.

    Example: actwright data select recordings/pick --episodes 0:50 --outcome solved --as pick-solved --why "only what worked"
    Example: actwright data select pick-solved --episodes 17 --leave-out --as pick-clean --why "the cup fell over"
    Example: actwright data select recordings/pick --intervened yes --as pick-taken-over --why "where the policy needed help"
    """
    from components.data.editing.parameters import Select

    platform, opened = _open([options.data_set])
    chosen = Select(
        episodes=_episodes(opened[0], options),
        tasks=tuple(options.task or ()),
        outcome=_outcome("--outcome", options.outcome),
        min_frames=options.min_frames,
        max_frames=options.max_frames,
        leave_out=options.leave_out,
    )
    _keep(platform, "select", opened, chosen, signed(options.name, options.why, options.who))


@from_options(SplitOptions)
def split(options: SplitOptions) -> None:
    """Divide the episodes into parts by hash; each part becomes an edit of its own, NAME-PART.

    Example: actwright data split pick --share train=0.9 --share held=0.1 --by cell --as pick --why "hold one cell out"
    """
    from components.data.editing.parameters import Split

    shares = {part: _number("--share", value) for part, value in pairs("--share", options.share).items()}
    for part in shares:
        chosen = _parameters(Split, {"part": part, "shares": shares, "by": options.by, "seed": options.seed})
        _make("split", [options.data_set], chosen, signed(f"{options.name}-{part}", options.why, options.who))


@from_options(TrimOptions)
def trim(options: TrimOptions) -> None:
    """Cut frames from the ends of episodes. The frames stay where they are; whatever reads the result does not see them.

    Example: actwright data trim pick --head 10 --as pick-short --why "the operator takes the handle"
    Example: actwright data trim pick --idle 5 --as pick-moving --why "no waiting"
    Example: actwright data trim pick-taken-over --intervened --as pick-corrections --why "what a person did"
    """
    from components.data.editing.parameters import Trim

    given = {episode: _range("--keep", value) for episode, value in pairs("--keep", options.keep).items()}
    platform, opened = _open([options.data_set])
    if options.idle >= 0:
        from components.data.editing.idle_ends import moving_parts

        if options.head or options.tail:
            raise typer.BadParameter("--idle and --head or --tail: expected one of them; trim the result of the first one again")
        given = moving_parts(opened[0].source, options.idle) | given
        print_line(f"{len(given)} of {len(opened[0].source.rows)} episodes have idle ends")
    if options.intervened:
        if options.head or options.tail or options.idle >= 0:
            raise typer.BadParameter(
                "--intervened and --head, --tail or --idle: expected one of them; trim the result of the first one again"
            )
        given = _intervened(opened[0]) | given
    _keep(platform, "trim", opened, Trim(head=options.head, tail=options.tail, keep=given), signed(options.name, options.why, options.who))


@from_options(RelabelOptions)
def relabel(options: RelabelOptions) -> None:
    """State other instructions, tasks or outcomes of episodes.

    Example: actwright data relabel pick --instruction "pick cup=pick up the cup" --as pick-words --why "whole sentences"
    Example: actwright data relabel pick --outcome pick-000012=failed --as pick-checked --why "the cup was not lifted"
    """
    from components.data.editing.parameters import Labels, Relabel

    words, names = pairs("--episode", options.episode), pairs("--task", options.task)
    outcomes = {one: _outcome("--outcome", value) for one, value in pairs("--outcome", options.outcome).items()}
    labels = {
        one: Labels(instruction=words.get(one), task=names.get(one), outcome=outcomes.get(one))
        for one in dict.fromkeys((*words, *names, *outcomes))
    }
    if not labels and not options.instruction:
        raise typer.BadParameter("nothing is to be stated otherwise; give --instruction, --episode, --task or --outcome")
    chosen = _parameters(Relabel, {"instructions": pairs("--instruction", options.instruction), "episodes": labels})
    _make("relabel", [options.data_set], chosen, signed(options.name, options.why, options.who))


def merge(
    data_sets: Annotated[list[str], typer.Argument(help=f"two or more data sets, each {SET}", metavar="SET SET ...")],
    name: Name,
    why: Why,
    who: Who = "",
) -> None:
    """Make one set of several of one embodiment and control rate. An episode that two of them have is given once.

    Sets that differ are refused with the fields. Equal episodes are found by contents, whatever they are called.

    Example: actwright data merge pick-monday pick-tuesday --as pick --why "one week"
    """
    from components.data.editing.merging import check_mergeable, merge_parameters

    platform, opened = _open(data_sets)
    sources = [one.source for one in opened]
    check_mergeable(sources)
    chosen = merge_parameters(sources)
    for place in chosen.once:
        print_line(f"given once: {place} has the frames of an earlier set's episode")
    for place, new in chosen.renamed.items():
        print_line(f"renamed: {place} is {new}, since an earlier set has another episode of that name")
    _keep(platform, "merge", opened, chosen, signed(name, why, who))


def _episodes(opened: OpenSet, options: SelectOptions) -> tuple[str, ...]:
    """The episodes that the options name, as numbers where it was looked up in which of them a person acted."""
    from components.data.editing.operations import chosen
    from components.data.lerobot.columns.interventions import acted_in

    words = tuple(options.episodes or ())
    if not options.intervened:
        return words
    wanted = {"yes": True, "no": False, "unknown": None}
    if options.intervened not in wanted:
        raise typer.BadParameter(f"--intervened {options.intervened!r}: expected yes, no or unknown")
    acted = {one.index: None if one.spans is None else bool(one.spans) for one in acted_in(opened.source)}
    rows = [row for row in opened.source.rows if not words or chosen(row, words)]
    found = tuple(str(row.index) for row in rows if acted[row.index] is wanted[options.intervened])
    if not found:
        raise typer.BadParameter(
            f"--intervened {options.intervened}: none of {len(rows)} episodes is one; `actwright data show --interventions`"
        )
    return found


def _intervened(opened: OpenSet) -> dict[str, tuple[int, int]]:
    """Of every episode the frames from the first to after the last one in which a person acted. Told: frames between that are kept too."""
    from components.data.lerobot.columns.interventions import acted_in

    found = acted_in(opened.source)
    if without := [one.episode_id for one in found if not one.spans]:
        raise typer.BadParameter(
            f"--intervened: {len(without)} of {len(found)} episodes have no frame in which a person is known to have acted, for example "
            f"{without[0]}; leave them out first, `actwright data select --intervened yes`"
        )
    kept = {one.episode_id: (one.spans[0][0], one.spans[-1][1]) for one in found if one.spans}
    between = sum(end - first for first, end in kept.values()) - sum(one.frames for one in found)
    print_line(f"{sum(one.frames for one in found)} frames in which a person acted are kept, and {between} frames between them")
    return kept


def _open(names: list[str]) -> tuple[Platform, list[OpenSet]]:
    from flows.pipeline.data_sets import open_sets
    from flows.platform.wiring import open_platform

    platform = open_platform()
    return platform, open_sets(platform, names)


def _make(operation: str, names: list[str], parameters: object, by: Signed) -> None:
    platform, opened = _open(names)
    _keep(platform, operation, opened, parameters, by)


def _keep(platform: Platform, operation: str, opened: list[OpenSet], parameters: object, by: Signed) -> None:
    from flows.pipeline.data_sets import catalogue, keep_edit

    known = catalogue(platform.settings)
    path = known.path_of(by.name)
    edit = known.new_edit(operation, opened, parameters, at=path, who=by.who, why=by.why)
    told = keep_edit(platform, path, edit)
    before = sum(len(one.source.rows) for one in opened)
    print_line(f"{operation}: {told['episodes']} of {before} episodes, {told['frames']} frames, in {path}")
    print_line(f"look at it:  actwright data show {by.name}")
    print_result(operation=operation, **told)


def _parameters(kind: Any, document: dict[str, Any]) -> Any:
    from model_core.spec.documents import from_document
    from model_core.spec.errors import SpecError

    try:
        return from_document(kind, document, where=kind.__name__.lower())
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def _outcome(option: str, value: str) -> Any:
    if value not in ("", "solved", "failed", "unknown"):
        raise typer.BadParameter(f"{option} {value!r}: expected solved, failed or unknown")
    return value


def _number(option: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {value!r}: expected a number between 0 and 1") from error


def _range(option: str, value: str) -> tuple[int, int]:
    first, _, end = value.partition(":")
    if not (first.isdigit() and end.isdigit()):
        raise typer.BadParameter(f"{option} {value!r}: expected FIRST:END as numbers of frames, the end left out")
    return int(first), int(end)
