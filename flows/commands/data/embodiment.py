"""`actwright embodiment`: draft, check and read the file that says what a robot's numbers and images mean."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.data.edit_options import lerobot_folder
from flows.terminal.output import print_line, print_result

embodiment_app = typer.Typer(help="The file that says what a robot's numbers and images mean.", no_args_is_help=True, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(help="a LeRobot data set")]


@embodiment_app.command()
def draft(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="where to write it; without it, <name of the folder>.embodiment.yaml here")] = None,
) -> None:
    """Draft an embodiment file from a data set: what metadata and data give, each guess with its evidence.

    What data cannot show (which value opens the gripper, frames, a mode that two readings explain) stays open as `confirm:`. Nothing is
    trained on a set until a person has answered each open item in the file and signed it.

    Example: actwright embodiment draft recordings/so101_pick --out so101.yaml
    """
    from components.data.embodiments.draft import draft_embodiment
    from components.data.embodiments.file import HOW_TO_ANSWER, HOW_TO_SIGN, read_file
    from components.data.embodiments.writing import text_of
    from model_core.spec.files import atomic_write

    data_set = _folder(folder)
    path = out or Path(f"{folder.resolve().name}.embodiment.yaml")
    if path.exists():
        raise typer.BadParameter(f"{path} is there already, with what a person may have answered. Fix: name another file, --out FILE")
    atomic_write(path, text_of(draft_embodiment(data_set)))
    file = read_file(path)
    for item in file.questions:
        print_line(f"open: {item}")
    print_line(f"{path}: {len(file.questions)} open items. For each, {HOW_TO_ANSWER}; then sign at the end, {HOW_TO_SIGN}")
    print_line(f"test it:  actwright embodiment check {path} {folder}")
    print_result(path=str(path), open=len(file.questions))


@embodiment_app.command()
def check(
    file: Annotated[str, typer.Argument(help="an embodiment file, or the name of a ready one")],
    folder: Folder,
) -> None:
    """Test an embodiment file against a data set, with numbers. A contradiction ends with exit code 3.

    Compared are dimensions, names, ranges (with the share outside), rate, cameras and units; whether the actions move the state as
    their mode says, against the other modes; whether the gripper opens when it is told to; and the lag between action and state.

    Example: actwright embodiment check so101.yaml recordings/so101_pick
    """
    from components.data.embodiments.check import check_embodiment
    from components.data.embodiments.check_result import CONTRADICTS
    from components.data.embodiments.evidence.recorded import read_recorded
    from components.data.embodiments.file import find_file, read_file
    from model_core.spec.errors import GateError

    data_set = _folder(folder)
    read = read_file(find_file(file))
    results = check_embodiment(read.document, read_recorded(data_set))
    for result in results:
        print_line(str(result))
    counts = Counter(result.verdict for result in results)
    print_line(f"{len(results)} checks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    if read.questions:
        print_line(f"{read.path.name} has {len(read.questions)} open items; nothing is trained on it until a person has answered them")
    wrong = [result for result in results if result.verdict == CONTRADICTS]
    print_result(
        checks=len(results), open=len(read.questions), **counts, contradictions=[f"{result.check}: {result.where}" for result in wrong]
    )
    if wrong:
        listed = "".join(f"\n  {result.check}: {result.where}: {result.said}" for result in wrong)
        raise GateError(
            f"{read.path.name} contradicts {folder.name} in {len(wrong)} of {len(results)} checks:{listed}\n"
            "Fix: correct the file where it is wrong about the robot; where the set is wrong, repair or leave out what is"
        )


@embodiment_app.command()
def ready(
    name: Annotated[str | None, typer.Argument(help="the file to write; without it, all are listed")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write it; without it, <name>.yaml here")] = None,
) -> None:
    """List the ready files of public robots, or write one to complete and sign. Each number in them names its source.

    Example: actwright embodiment ready so101 --out so101.yaml
    """
    from components.data.embodiments.file import find_file, read_file
    from components.data.embodiments.ready import ready_names, ready_path
    from model_core.spec.files import atomic_write

    if name is None:
        for one in ready_names():
            file = read_file(ready_path(one))
            print_line(f"{one}: {file.document.note} {len(file.questions)} open items")
        print_result(ready=list(ready_names()))
        return
    if name not in ready_names():
        raise typer.BadParameter(f"there is no ready file {name!r}; there is {', '.join(ready_names())}")
    path = out or Path(f"{name}.yaml")
    if path.exists():
        raise typer.BadParameter(f"{path} is there already, with what a person may have answered. Fix: name another file, --out FILE")
    atomic_write(path, find_file(name).read_text(encoding="utf-8"))
    file = read_file(path)
    for item in file.questions:
        print_line(f"open: {item}")
    print_result(path=str(path), open=len(file.questions))


def add_embodiment(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(embodiment_app, name="embodiment")


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder; give the folder of a LeRobot data set")
    return lerobot_folder(folder)
