"""`actwright data inspect` and `actwright data passport`: what is wrong with a LeRobot folder, and its papers."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.data.edit_options import lerobot_folder
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.config.data_config import ValidateConfig
    from components.config.records import Progress
    from components.data.inspection.reporting.report import InspectionReport
    from model_core.spec.contract import EmbodimentSpec

_EPISODES_PER_BLOCK = 4
Folder = Annotated[Path, typer.Argument(help="a LeRobot data set of any version and writer", exists=True, file_okay=False)]
Embodiment = Annotated[Path | None, typer.Option(help="the file that describes its embodiment; names ranges and units", metavar="FILE")]


Recipe = Annotated[
    str | None,
    typer.Option(help="the recipe whose thresholds count (its section validate); without it, the standard ones", metavar="RECIPE"),
]
Page = Annotated[Path | None, typer.Option(help="also write a page for people, readable without a network", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="print the whole report as one JSON line, every fault in it")]
Images = Annotated[bool, typer.Option(help="look at every image; without, only at files, rows and the times of images")]
Ray = Annotated[
    str | None,
    typer.Option(help="measure on a Ray cluster: HOST:PORT, auto, or local for one of its own (extra `ray`)", metavar="ADDRESS"),
]
Actors = Annotated[int, typer.Option(help="processes that measure there", min=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """What is inspected, by which thresholds, where, and how it is told."""

    folder: Folder
    embodiment: Embodiment = None
    recipe: Recipe = None
    page: Page = None
    as_json: AsJson = False
    images: Images = True
    ray: Ray = None
    actors: Actors = 1


@from_options(InspectOptions)
def inspect(options: InspectOptions) -> None:
    """Inspect a data set: defects (set aside), risks (told) and what cannot be known, each with its evidence, reason, fix and source.

    Every picture is decoded once; what was measured is kept, so that another threshold reads no video again. The folder is not changed.

    Example: actwright data inspect recordings/so101-cups
    Example: actwright data inspect recordings/so101-cups --json > report.json
    Example: actwright data inspect recordings/so101-cups --no-images
    Example: actwright data inspect recordings/so101-cups --ray auto --actors 16
    """
    # without images it takes less than a second, of which settings and a panel would be a third
    store, progress = _with_images() if options.images else _rows_alone()
    from components.data.inspection.reporting.inspect import inspect_folder
    from components.data.inspection.reporting.report import lines, report_document

    folder, embodiment = lerobot_folder(options.folder), _embodiment(options.embodiment)
    if options.ray is not None:
        if store is None or progress is None:
            raise typer.BadParameter("--ray measures images; leave --no-images out")
        _measure_on_ray(folder, store, embodiment, (options.ray, options.actors), progress)
    report = inspect_folder(folder, store, progress, cfg=_thresholds(options.recipe), embodiment=embodiment, pixels=options.images)
    if options.page is not None:
        _write_page(options.page, report)
    document = report_document(report)
    if options.as_json:
        print_result(**document)
        return
    for line in lines(report):
        print_line(line)
    print_result(**{name: document[name] for name in ("name", "episodes", "frames", "counts", "set_aside")})


def passport(
    folder: Folder,
    embodiment: Embodiment = None,
    out: Annotated[
        Path | None, typer.Option(help="where to write it, as .md or .json; without it, the text is printed", metavar="FILE")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="a finished annotation of it, for the error of its labels", metavar="FOLDER")] = None,
) -> None:
    """Write the passport of a data set: what, whose, licence, faults, label error, versions.

    The label error is known where a simulator's truth was recorded beside what networks labelled; else the passport says why not.

    Example: actwright data passport recordings/so101-cups --out PASSPORT.md
    Example: actwright data passport data/collect/dataset --labels data/annotate
    """
    import json

    from components.data.inspection.reporting.passport import make_passport, passport_markdown
    from flows.platform.settings import load_settings
    from flows.terminal.stage_progress import StagePanel
    from model_core.spec.files import atomic_write

    progress = StagePanel(live=False).stage("validate")
    made = make_passport(
        lerobot_folder(folder), load_settings().home / "measurements", progress, embodiment=_embodiment(embodiment), labels=labels
    )
    text = passport_markdown(made)
    if out is None:
        for line in text.splitlines():
            print_line(line)
    else:
        atomic_write(out, text if out.suffix != ".json" else json.dumps(made, indent=1, sort_keys=True) + "\n")
    print_result(**made)


def _measure_on_ray(folder: Path, store: Path, embodiment: EmbodimentSpec | None, where: tuple[str, int], progress: Progress) -> None:
    """Have a cluster fill the store; what it could not measure is measured here again, and told as any fault is."""
    from components.config.launch.ray_config import RayConfig
    from components.data.inspection.measurements.by_engine import measure_on_ray
    from model_core.spec.errors import SpecError

    address, actors = where
    try:
        config = RayConfig(address=address, actors=actors, block_rows=_EPISODES_PER_BLOCK)
        cost, errors = measure_on_ray(folder, store, embodiment, config, progress)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    print_line(f"Ray: {cost}")
    for number, reason in errors.items():
        print_line(f"Ray: episode {number} was not measured there: {reason}")


def _thresholds(recipe: str | None) -> ValidateConfig:
    """Those of the recipe; without one, the defaults of every recipe, for which no recipe has to be read."""
    if recipe is None:
        from components.config.data_config import ValidateConfig

        return ValidateConfig()
    from flows.commands.recipe_arguments import recipe_of

    return recipe_of(recipe, option="--recipe").validate


def _write_page(page: Path, report: InspectionReport) -> None:
    from components.data.inspection.reporting.page import report_page
    from model_core.spec.files import atomic_write

    atomic_write(page, report_page(report))


def _with_images() -> tuple[Path, Progress]:
    """Where measurements are kept, and a panel: decoding takes minutes."""
    from flows.platform.settings import load_settings
    from flows.terminal.stage_progress import StagePanel

    return load_settings().home / "measurements", StagePanel(live=False).stage("validate")


def _rows_alone() -> tuple[None, None]:
    """Nothing is kept and nothing shown. What is allocated stays until the end: to look for garbage takes a twentieth of the time."""
    gc.set_threshold(200_000, 20, 20)
    from components.data.inspection.folder.table import take_memory_of_the_system

    take_memory_of_the_system()
    return None, None


def _embodiment(file: Path | None) -> EmbodimentSpec | None:
    if file is None:
        return None
    from components.data.embodiments.file import read_embodiment

    return read_embodiment(file)
