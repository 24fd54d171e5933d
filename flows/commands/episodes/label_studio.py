"""`actwright episodes label-send | label-fetch`: frames to a running Label Studio, and what people labelled there, by its API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.episodes.labels import take_in
from flows.commands.episodes.revisions import SetPlace, found_place
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.second_labels.label_studio_server import LabelStudio

Server = Annotated[str, typer.Option(help="address of Label Studio", metavar="URL")]
ServerToken = Annotated[Path, typer.Option(help="file with your access token of Label Studio", exists=True, dir_okay=False)]


def label_send(
    place: SetPlace,
    server: Server,
    token_file: ServerToken,
    title: Annotated[str, typer.Option(help="of the new project (default: the place)")] = "",
    frames: Annotated[int, typer.Option(help="how many frames are asked about", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="another number draws other frames")] = 0,
) -> None:
    """Make a project in Label Studio with frames that a second person labels, without the labels that they have.

    The frames travel inside the tasks, so the server needs no folder of ours.

    Example: actwright episodes label-send pick --server http://127.0.0.1:8080 --token-file label-studio.token
    """
    import base64

    from components.data.second_labels.label_studio import task_of
    from flows.pipeline.episodes.library import Draw

    library, found = found_place(place)
    asked = library.asked_images(found, Draw(count=frames, seed=seed))
    tasks = [task_of(one, f"data:image/png;base64,{base64.b64encode(png).decode()}", size) for one, png, size in asked]
    studio = _opened(server, token_file)
    project = studio.add_project(title or f"gripper points of {found.name}")
    taken = studio.add_tasks(project, tasks)
    print_line(f"{taken} frames in project {project} of {server}; later: actwright episodes label-fetch {place} --project {project} ...")
    print_result(project=project, tasks=taken)


def label_fetch(
    place: SetPlace,
    server: Server,
    token_file: ServerToken,
    project: Annotated[int, typer.Option(help="number of the project, as `label-send` told it", min=1)],
) -> None:
    """Take in what people labelled in a project of Label Studio; again, it adds what is new.

    Example: actwright episodes label-fetch pick --server http://127.0.0.1:8080 --token-file label-studio.token --project 3
    """
    take_in(place, _opened(server, token_file).finished(project))


def _opened(server: str, token_file: Path) -> LabelStudio:
    from components.data.second_labels.label_studio_server import LabelStudio

    return LabelStudio(server, token_file.read_text(encoding="utf-8").strip())
