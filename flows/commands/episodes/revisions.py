"""`actwright episodes revise | undo | revisions | version`: state what was wrong of an episode, and make a data set of it."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.data.edit_options import Name, Who, Why, signed
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.episodes.place import Place
    from components.data.revisions.change import Change, Revision
    from flows.pipeline.episodes.library import EpisodeLibrary

SetPlace = Annotated[str, typer.Argument(help="a place of episodes: its path, its name or its key", metavar="PLACE")]
Author = Annotated[str, typer.Option("--who", help="who states it; empty: the user of this machine")]
_TOOL = "actwright episodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviseOptions:
    """What is stated of which episodes."""

    place: SetPlace
    episode: Annotated[list[str], typer.Argument(help="ids of episodes", metavar="EPISODE ...")]
    include: Annotated[bool | None, typer.Option("--include/--leave-out", help="whether they are of the next data set")] = None
    keep: Annotated[str, typer.Option("--keep", help="the frames that are kept, the end left out", metavar="FIRST:END")] = ""
    outcome: Annotated[str, typer.Option("--outcome", help="solved, failed or unknown")] = ""
    cause: Annotated[list[str] | None, typer.Option("--cause", help="why it failed; again for more, and in place of those before")] = None
    note: Annotated[str, typer.Option("--note", help="a sentence for people, beside causes")] = ""
    instruction: Annotated[str, typer.Option("--instruction", help="what the policy is told")] = ""
    dismiss: Annotated[bool, typer.Option("--dismiss", help="it needs nothing; it leaves the queue of failures")] = False
    who: Author = ""


@from_options(ReviseOptions)
def revise(options: ReviseOptions) -> None:
    """State something of episodes: whether they are kept, which frames, how they came out, why they failed, what the policy is told.

    Each is an appended revision with author and time; nothing is changed in place, and `actwright episodes undo` takes one back.

    Example: actwright episodes revise recordings/pick pick-000012 pick-000019 --leave-out --cause dropped
    Example: actwright episodes revise pick pick-000003 --keep 10:180 --outcome solved --instruction "pick up the cup"
    """
    from components.data.revisions.book import Author as By
    from components.data.revisions.book import Subject

    library, place = found_place(options.place)
    subjects = [Subject(episode=one, frames=library.index.find(place.key, one).row.length) for one in options.episode]
    made = library.book(place).add(subjects, _changes(options), By(name=options.who or getpass.getuser(), tool=_TOOL))
    library.tell_revisions(place)
    for one in made:
        print_line(_line(one, is_undone=False))
    print_result(place=place.key, revisions=[_document(one, is_undone=False) for one in made], head=library.book(place).head)


def undo(place: SetPlace, number: Annotated[int, typer.Argument(help="of the revision", min=0)], who: Author = "") -> None:
    """Let a revision count no more. The undo is a revision too, and can be undone.

    Example: actwright episodes undo pick 4
    """
    from components.data.revisions.book import Author as By

    library, found = found_place(place)
    made = library.book(found).undo(number, By(name=who or getpass.getuser(), tool=_TOOL))
    library.tell_revisions(found)
    print_line(_line(made, is_undone=False))
    print_result(place=found.key, revision=_document(made, is_undone=False), head=library.book(found).head)


def revisions(
    place: SetPlace, head: Annotated[str, typer.Option(help="a hash that was noted before: the chain must hold it")] = ""
) -> None:
    """List what people stated of the episodes of a place, oldest first, and prove that no line of it was changed.

    Example: actwright episodes revisions pick
    """
    from components.data.revisions.state import undone

    library, found = found_place(place)
    book = library.book(found)
    without = undone(book.revisions)
    for one in book.revisions:
        print_line(_line(one, is_undone=one.number in without))
    if head and not book.holds(head):
        raise typer.BadParameter(f"--head {head}: the chain of {book.path} does not hold it; lines were taken out or changed")
    print_line(f"{len(book.revisions)} revisions, {len(without)} of them undone; the chain holds, its last hash is {book.head[:16]}")
    print_result(place=found.key, revisions=[_document(one, is_undone=one.number in without) for one in book.revisions], head=book.head)


def version(
    place: SetPlace,
    name: Name,
    why: Why,
    only_included: Annotated[
        bool, typer.Option("--only-included", help="keep only episodes that a person included, not everything that was not left out")
    ] = False,
    who: Who = "",
) -> None:
    """Make a new data set version of what was stated: small edits of the set, which training can name; nothing is copied.

    Example: actwright episodes version recordings/pick --as pick-sorted --why "failures sorted out"
    """
    from flows.pipeline.episodes.versions import NewVersion, make_version
    from flows.platform.wiring import open_platform

    by = signed(name, why, who)
    _, found = found_place(place)
    made = make_version(open_platform(), found, NewVersion(name=by.name, why=by.why, who=who, only_included=only_included))
    for path in made.edits:
        print_line(f"edit: {path}")
    if made.corrections is not None:
        print_line(f"corrections of labels: {made.corrections}; a recipe names them, --set annotate.corrections={made.corrections}")
    print_line(f"{made.told['episodes']} episodes, {made.left_out} left out; train on it: a source of kind 'edited' with this path")
    edits = [str(path) for path in made.edits]
    print_result(edits=edits, corrections=str(made.corrections or ""), left_out=made.left_out, **made.told)


def found_place(name: str) -> tuple[EpisodeLibrary, Place]:
    """The library, brought up to date, and the place that was named."""
    from pathlib import Path

    from components.config.records import Silent
    from flows.pipeline.episodes.library import episode_library
    from flows.platform.wiring import open_platform

    library = episode_library(open_platform().settings)
    library.refresh([Path(name)] if Path(name).exists() else [], Silent())
    return library, library.place(name)


def _changes(options: ReviseOptions) -> list[Change]:
    from components.data.revisions.change import KINDS
    from model_core.spec.documents import from_document
    from model_core.spec.errors import SpecError

    given: dict[str, dict[str, Any]] = {}
    if options.include is not None:
        given["include"] = {"included": options.include}
    if options.keep:
        first, _, end = options.keep.partition(":")
        if not (first.isdigit() and end.isdigit()):
            raise typer.BadParameter(f"--keep {options.keep!r}: expected FIRST:END as numbers of frames, the end left out")
        given["trim"] = {"first": int(first), "end": int(end)}
    if options.outcome:
        given["outcome"] = {"outcome": options.outcome}
    if options.cause:
        given["causes"] = {"causes": options.cause, "note": options.note}
    if options.instruction:
        given["instruction"] = {"instruction": options.instruction}
    if options.dismiss:
        given["dismiss"] = {"note": options.note}
    if not given:
        raise typer.BadParameter("nothing is stated; give --include, --leave-out, --keep, --outcome, --cause, --instruction or --dismiss")
    try:
        return [from_document(KINDS[name], document, where=name) for name, document in given.items()]
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def _line(one: Revision, *, is_undone: bool) -> str:
    from model_core.spec.documents import to_document

    said = ", ".join(f"{name} {value}" for name, value in to_document(one.change).items() if value not in ("", None))
    return f"{one.number:>5} {one.at[:19]} {one.author:<16} {one.episode:<32} {one.kind}: {said}{'  (undone)' if is_undone else ''}"


def _document(one: Revision, *, is_undone: bool) -> dict[str, Any]:
    from components.data.revisions.change import entry_of

    return {"number": one.number, **entry_of(one), "is_undone": is_undone}
