"""`actwright episodes label-tasks | label-answers | label-agreement`: a second person's labels, by Label Studio or by the console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.episodes.revisions import SetPlace, found_place
from flows.terminal.output import print_line, print_result


def label_tasks(
    place: SetPlace,
    out: Annotated[Path, typer.Option(help="a new folder for tasks.json, config.xml and the frames")],
    frames: Annotated[int, typer.Option(help="how many frames are asked about", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="another number draws other frames")] = 0,
    camera: Annotated[str, typer.Option(help="of which camera; empty: the first one")] = "",
    images_at: Annotated[str, typer.Option(help="what Label Studio puts before the name of an image")] = "/data/local-files/?d=frames/",
) -> None:
    """Write frames that a second person labels in Label Studio, without the labels that they have.

    Example: actwright episodes label-tasks pick --out second --frames 200
    """
    from components.artifacts.new_folder import new_folder
    from components.data.second_labels.label_studio import CONFIG, task_of
    from flows.pipeline.episodes.library import Draw

    library, found = found_place(place)
    with new_folder(out) as folder:
        (folder / "frames").mkdir()
        tasks = []
        for number, (asked, png, size) in enumerate(library.asked_images(found, Draw(count=frames, seed=seed, camera=camera))):
            name = f"{number:05d}.png"
            (folder / "frames" / name).write_bytes(png)
            tasks.append(task_of(asked, f"{images_at}{name}", size))
        (folder / "tasks.json").write_text(json.dumps(tasks, indent=1), encoding="utf-8")
        (folder / "config.xml").write_text(CONFIG, encoding="utf-8")
    print_line(f"{len(tasks)} frames in {out}: import tasks.json into a project with the labelling interface of config.xml")
    print_result(tasks=len(tasks), path=str(out))


def label_answers(place: SetPlace, file: Annotated[Path, typer.Argument(help="an export of the project, as JSON", exists=True)]) -> None:
    """Take in what people labelled in Label Studio; the same export again adds nothing.

    Example: actwright episodes label-answers pick project-1.json
    """
    from model_core.spec.errors import DatasetError

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{file} is no JSON ({error}). Fix: export the project as JSON") from error
    take_in(place, document)


def take_in(place: str, document: object) -> None:
    """Add the opinions of an export of Label Studio, and say how many are new."""
    from components.data.second_labels.label_studio import opinions_of

    library, found = found_place(place)
    given = opinions_of(document)
    added = library.opinions(found).add(given)
    print_line(f"{added} of {len(given)} opinions are new")
    print_result(opinions=len(given), added=added)


def label_agreement(
    place: SetPlace,
    labels: Annotated[Path, typer.Option(help="the finished annotation that is judged", exists=True, file_okay=False)],
    out: Annotated[Path | None, typer.Option(help="where the result is written; `actwright data passport --labels` takes it")] = None,
) -> None:
    """Estimate how often labels are wrong, by how often a second person contradicts them, with an exact interval.

    Example: actwright episodes label-agreement pick --labels data/annotate --out second.json
    """
    from components.data.second_labels.agreement import judged_labels
    from model_core.spec.files import atomic_write

    library, found = found_place(place)
    told = judged_labels(labels, library.opinions(found).opinions)
    if out is not None:
        atomic_write(out, json.dumps(told, indent=1, sort_keys=True) + "\n")
    print_line(_sentence("label error", told))
    if "traces" in told:
        print_line(_sentence("error of traces", told["traces"]))
    print_result(**told)


def _sentence(what: str, told: Mapping[str, Any]) -> str:
    if "interval_95" not in told:
        return f"{what} {told['estimate']}: {told['why']}"
    low, high = told["interval_95"]
    return f"{what} {told['estimate']:.1%}, 95 % interval {low:.1%} to {high:.1%}, of {told['compared_frames']} frames"
