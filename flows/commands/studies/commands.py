"""`actwright study plan|run|take-in|arena|ablate|amend|status|verify`: comparisons of policies and their evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.commands.studies.ablate import ablate_command
from flows.commands.studies.arena import arena_command
from flows.commands.studies.run import run_command, suite_of
from flows.commands.studies.take_in import take_in_command
from flows.terminal.output import HELD, print_line, print_result

_HELP = "Comparisons of policies: what to expect of one, run it, ratings of many, and a proof that no trial was changed."
_NONE = (
    "no study in this home yet; `actwright run` makes one where there is a champion to compare with, `actwright study run` one of any "
    "two policies"
)
study_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
study_app.command("run")(run_command)
study_app.command("take-in")(take_in_command)
study_app.command("arena")(arena_command)
study_app.command("ablate")(ablate_command)


@study_app.command("plan")
def plan_command(
    recipe: RecipeName = "loop",
    rate: Annotated[float, typer.Option(help="the champion's success rate on each task", min=0.0, max=1.0)] = 0.9,
    change: Overrides = None,
) -> None:
    """Say what can be expected of a comparison under a recipe's gate: nothing is run.

    Example: actwright study plan loop --rate 0.9
    Example: actwright study plan loop --rate 0.7 --set gate.max_pairs=200
    """
    from components.evaluation.judging.plan import plan_of

    chosen = recipe_of(recipe, change)
    sentences = plan_of(chosen.gate, dict.fromkeys(chosen.collect.tasks, rate))
    for sentence in sentences or ("a margin of 1 permits every difference, so there is nothing to plan",):
        print_line(sentence)
    print_result(plan=list(sentences))


@study_app.command("status")
def status_command() -> None:
    """List the studies of this home: who was compared, and how many trials are on record.

    Example: actwright study status
    """
    from components.evaluation.studies.design import read_design
    from components.evaluation.studies.ledger import read_ledger
    from model_core.spec.documents import to_document

    rows, folders = list[dict[str, object]](), _studies()
    if not folders:
        print_line(_NONE)
    for folder in folders:
        design = read_design(folder)
        found = read_ledger(folder, design)
        row: dict[str, object] = {
            "study": folder.name,
            "candidate": design.candidate[:12],
            "champion": design.champion[:12],
            "trials": len(found.trials),
        }
        row |= {"void": sum(trial.void for trial in found.trials), "blocks": len({trial.block for trial in found.trials})}
        row |= {"assignment": design.assignment, "metric": design.metric, "setting": design.setting, "planned": 2 * len(design.scenes)}
        row |= {"evaluated_before": design.evaluated_before}
        row |= {"amendments": [{"after_trials": place, **to_document(one)} for place, one in found.amendments]}
        rows.append(row | {"head": found.head, "problem": found.problem})
        words = found.problem or f"{row['trials']} trials in {row['blocks']} blocks, {row['void']} void, last hash {found.head[:16]}"
        print_line(f"{folder}: candidate {row['candidate']}, champion {row['champion']}: {words}")
        if design.evaluated_before:
            print_line("  the candidate's evaluation was finished before this design was locked")
        for place, one in found.amendments:
            more = f", {len(one.scenes)} further scenes" if one.scenes else ""
            print_line(f"  AMENDED after trial {place}{f' by {one.by}' if one.by else ''}: {one.reason}{more}")
    print_result(studies=rows)


@study_app.command("amend")
def amend_command(
    study: Annotated[str, typer.Argument(help="the study's folder, or the first digits of its name", metavar="STUDY")],
    reason: Annotated[str, typer.Option(help="one sentence; it stays on record and is shown wherever the study is")],
    by: Annotated[str, typer.Option(help="who changes it")] = "",
    recipe: Annotated[str, typer.Option(help="adds the scenes that this recipe has and the study has not")] = "",
    change: Overrides = None,
) -> None:
    """Change a locked study, in the open: note what changed at the robot, or add scenes with --recipe RECIPE --set gate.max_pairs=N.

    Nothing that was locked is rewritten: an amendment is a line of the ledger. Margin, metric and test cannot be amended: that is another
    study.

    Example: actwright study amend 3f9a --reason "the lamp was replaced" --by Ada
    Example: actwright study amend 3f9a --reason "still open" --recipe loop --set gate.max_pairs=100
    """
    from components.evaluation.studies.amending import amend
    from components.evaluation.studies.simulated import scenes_of

    named = Path(study) if Path(study).is_dir() else None
    found = [named] if named else [folder for folder in _studies() if folder.name.startswith(study)]
    if len(found) != 1:
        raise typer.BadParameter(f"expected one study that begins with {study!r}, got {len(found)}; `actwright study status` lists them")
    scenes = scenes_of(suite_of(recipe_of(recipe, change))) if recipe else ()
    ledger = amend(found[0], reason, by=by, scenes=scenes)
    added = ledger.amendments[-1][1].scenes
    print_line(f"{found[0]}: amended after trial {len(ledger.trials)}: {reason}" + (f" ({len(added)} further scenes)" if added else ""))
    print_result(study=str(found[0]), head=ledger.head, further_scenes=len(added))


@study_app.command("verify")
def verify_command(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="folders of studies (default: all of this home)", metavar="FOLDER...")
    ] = None,
    head: Annotated[str, typer.Option(help="the last hash (or its first digits), as the verdict carries it")] = "",
) -> None:
    """Prove that no trial of a study was changed, left out or moved, and that its design is the one that was locked.

    Exits 0 when everything is proven, 3 when not, naming the first trial that is wrong. Trials that are missing at the end are found only
    with --head.

    Example: actwright study verify
    """
    from components.evaluation.studies.ledger import problem_of

    found = folders or _studies()
    if not found:
        raise typer.BadParameter(_NONE)
    problems = {str(folder): problem_of(folder, head) for folder in found}
    for folder, problem in problems.items():
        print_line(f"{folder}: {'NOT PROVEN: ' + problem if problem else 'proven'}")
    print_result(proven=not any(problems.values()), problems={name: problem for name, problem in problems.items() if problem})
    if any(problems.values()):
        raise typer.Exit(HELD)


def _studies() -> list[Path]:
    from components.evaluation.studies.design import DESIGN
    from flows.platform.settings import load_settings

    return sorted(path.parent for path in (load_settings().home / "studies").glob(f"*/{DESIGN}"))


def add_studies(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(study_app, name="study")
