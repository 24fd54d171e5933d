"""`actwright model adopt`: state once what the files of a published checkpoint don't say, so that it is served like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from model_core.port.adopt import Adopted

UNREADABLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptOptions:
    """What a person states about a published folder. Without defaults stands what no file of it says."""

    folder: Annotated[Path, typer.Argument(help="a checkpoint folder in the published layout", metavar="FOLDER")]
    embodiment: Annotated[
        str,
        typer.Option(
            help="embodiment file (or the name of a ready one): cameras in the order in which they are shown, units, mode, gripper, rate",
            metavar="FILE",
        ),
    ]
    chunk_length: Annotated[int, typer.Option(help="rows of a chunk that it was trained to answer (1 or 8, as released)", min=1, max=64)]
    norm_key: Annotated[str, typer.Option(help="key of norm_stats in config.json: the statistics of this robot's actions")] = ""
    execute_horizon: Annotated[int, typer.Option(help="rows executed before it is asked again; 0: all", min=0)] = 0
    wording: Annotated[
        str,
        typer.Option(
            help="whose sentences: released, quick-start (one image is asked about as one of several), or finetuned (the published script)"
        ),
    ] = "released"
    decoding: Annotated[
        str, typer.Option(help="constrained: only what the language allows; faithful: token for token what greedy decoding gives")
    ] = "constrained"
    images: Annotated[str, typer.Option(help="sound, or published: with the defects of the published image processor")] = "sound"
    dtype: Annotated[str, typer.Option(help="of the weights when it is served: float32 or bfloat16")] = "float32"
    steering: Annotated[
        str,
        typer.Option(help="a drawn trace is shown as in training, or published: on the image resized to 256 x 256, three pixels wide"),
    ] = "training"
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="a file that holds the key, if config.json does not: {KEY: {action: {q01, q99, mask}}}", exists=True, dir_okay=False
        ),
    ] = None
    beside: Annotated[bool, typer.Option("--beside", help="the folder is adopted already: add this robot to those that it acts for")] = (
        False
    )
    replace: Annotated[bool, typer.Option("--replace", help="write the contract again where there is one")] = False


@from_options(AdoptOptions)
def adopt_command(options: AdoptOptions) -> None:
    """Write contract.json and adoption.json into a folder in the published layout, which is then served, probed and audited like any other.

    Statistics come from norm_stats, by the key that you name; the network, the processor and the tokenizer from their files. What no
    file says (camera order, units, mode, gripper polarity, rate, chunk) you state. Everything is checked before anything is written, and
    of the weights only the headers are read. Exits 2, with one reason, where something is missing or does not fit.

    With --beside a further robot gets a contract beside the first's, of which no file is changed; then serve, package and release name one
    with --embodiment.

    Example: actwright model adopt models/MolmoAct-7B-D-0812 --embodiment arm.yaml --norm-key molmoact --chunk-length 1
    Example: actwright model adopt models/mine --beside --embodiment second.yaml --statistics second.json --norm-key second --chunk-length 8
    """
    from model_core.spec.errors import ActwrightError

    try:
        made = _adopted(options)
    except ActwrightError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNREADABLE) from error
    contract, body = made.contract, made.contract.embodiment
    for note in made.notes:
        print_line(f"note      {note}")
    print_line(
        f"adopted   {options.folder}: contract {contract.contract_id} for {body.name}, statistics {made.adoption.of(body.name).norm_key!r}"
    )
    if options.beside:
        print_line(f"acts for  {', '.join(made.adoption.embodiments)}; each is served by its name")
    print_line(f"then try  actwright serve {options.folder}{f' --embodiment {body.name}' if options.beside else ''}")
    print_result(
        folder=str(options.folder),
        contract_id=contract.contract_id,
        embodiment=body.name,
        norm_key=made.adoption.of(body.name).norm_key,
        chunk=[contract.chunk_length, contract.execute_horizon],
        levels=list(contract.reasoning.levels),
        notes=list(made.notes),
        **_choices(made),
    )


def _adopted(options: AdoptOptions) -> Adopted:
    from components.data.embodiments.file import find_file, read_embodiment
    from model_core.adoption.document import LanguageChoices
    from model_core.port.adopt import AdoptionRequest, adopt
    from model_core.port.adopt_beside import adopt_beside
    from model_core.spec.documents import from_document
    from model_core.spec.errors import require

    choices = {name: getattr(options, name) for name in ("wording", "decoding", "images", "dtype", "steering")}
    request = AdoptionRequest(
        embodiment=read_embodiment(find_file(options.embodiment)),
        norm_key=options.norm_key,
        chunk_length=options.chunk_length,
        execute_horizon=options.execute_horizon,
        statistics=options.statistics,
        language=from_document(LanguageChoices, choices, where="model adopt"),
    )
    if options.beside:
        require(not options.replace, "--beside adds a robot, --replace writes the contract of the only one again. Fix: give one of them")
        return adopt_beside(options.folder, request)
    return adopt(options.folder, request, replace=options.replace)


def _choices(made: Adopted) -> dict[str, Any]:
    from model_core.spec.documents import to_document

    return to_document(made.adoption.of(made.contract.embodiment.name).language)
