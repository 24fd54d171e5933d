"""`actwright model ...`: look into a checkpoint, prove that its arithmetic is the published one, rewrite its layout.

Each command is a thin shell around `model_core`; torch is imported only inside, so that `--help` answers at once.
Exit codes: 0 as hoped, 1 not equal or not loadable, 2 what was given cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.commands.models.adopt import UNREADABLE, adopt_command
from flows.commands.models.quantize import quantize_command
from model_core.spec.errors import ActwrightError

if TYPE_CHECKING:
    from model_core.inspection import CheckpointReport
    from model_core.network.config import MolmoActConfig
    from model_core.parity import ImageParity, ModelParity, VqvaeParity

model_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Checkpoints: inspect, adopt for serving, compare with the published code, convert, round to int8.",
)
model_app.command("adopt")(adopt_command)
model_app.command("quantize")(quantize_command)

NOT_EQUAL = 1
_NETWORKS = ("7b-d", "7b-o")
_T = TypeVar("_T")


@model_app.command("inspect")
def inspect_command(
    folder: Annotated[Path, typer.Argument(help="A checkpoint folder (published or training-side layout).")],
    network: Annotated[str | None, typer.Option(help=f"Which network, where config.json is missing: {' or '.join(_NETWORKS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line instead of text.")] = False,
) -> None:
    """Show architecture, parameters, vocabulary and contract of a checkpoint, and what is missing.

    Only headers are read, so a 32 GB checkpoint answers at once. Exits 1 when the weights do not fit the config
    (every missing, unexpected or wrongly shaped key is listed).

    Example: actwright model inspect models/MolmoAct-7B-D-0812
    """

    def look() -> CheckpointReport:
        from model_core.inspection import inspect_checkpoint

        return inspect_checkpoint(folder, _named(network))

    report = _readable(look)
    typer.echo(_report_json(report) if as_json else _report_text(report))
    raise typer.Exit(NOT_EQUAL if report.broken else 0)


@model_app.command("parity")
def parity_command(
    folder: Annotated[Path, typer.Argument(help="A recording: config.json, model.safetensors and io.safetensors.")],
    tolerance: Annotated[float, typer.Option(help="Largest allowed difference of a logit or an image feature (float32).")] = 1e-4,
) -> None:
    """Compare logits, image features and greedy tokens with a recording of the published implementation.

    Prints one JSON line with max_abs_logit_diff, max_abs_feature_diff and generated_equal. Exits 0 only if both
    differences are within the tolerance and every generated token is the same; 1 if not; 2 if nothing could be compared.

    Example: actwright model parity tests/golden/model/tiny_d
    """

    def compare() -> ModelParity:
        from model_core.parity import model_parity

        return model_parity(folder, tolerance=tolerance)

    _verdict(_readable(compare))


@model_app.command("parity-images")
def parity_images_command(
    file: Annotated[Path, typer.Argument(help="An .npz with the frames in0, in1, ... and what the published processor made of them.")],
    processor: Annotated[
        str | None,
        typer.Option(help="Processor settings: a JSON file or JSON text. Default: the .json beside FILE."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest allowed difference of a normalised pixel.")] = 1e-5,
) -> None:
    """Compare the image processor, in published mode, with a recording of the published one.

    Prints one JSON line. Exits 0 only if indices, masks and grids are identical and pixels are within the tolerance.

    Example: actwright model parity-images frames.npz --processor '{"crop_mode": "resize"}'
    """

    def compare() -> ImageParity:
        from model_core.parity import image_parity

        is_text = processor is not None and processor.lstrip().startswith("{")
        return image_parity(file, processor if is_text or processor is None else Path(processor), tolerance=tolerance)

    _verdict(_readable(compare))


@model_app.command("parity-vqvae")
def parity_vqvae_command(
    folder: Annotated[Path, typer.Argument(help="Holds config.json, model.safetensors and io.safetensors of a depth VQ-VAE.")],
    tolerance: Annotated[float, typer.Option(help="Largest allowed difference of a decoded depth value.")] = 1e-4,
) -> None:
    """Compare depth codes and decoded depth with a recording of the published VQ-VAE.

    Prints one JSON line. Exits 0 only if every code is identical and decoded depth is within the tolerance. A cell whose
    two codes are equally near within float32 rounding is counted in codes_tied and not held against us.

    Example: actwright model parity-vqvae tests/golden/vqvae_small
    """

    def compare() -> VqvaeParity:
        from model_core.parity import vqvae_parity

        return vqvae_parity(folder, tolerance=tolerance)

    _verdict(_readable(compare))


@model_app.command("convert")
def convert_command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint folder, or a hub id such as allenai/MolmoAct-7B-D-0812.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="A folder without weights; made if it is not there.")],
    to: Annotated[str | None, typer.Option(help="Layout to write: published or olmo. Default: the other one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: as stored.")] = None,
    network: Annotated[str | None, typer.Option(help=f"Which network, where config.json is missing: {' or '.join(_NETWORKS)}.")] = None,
    adapters: Annotated[Path | None, typer.Option(help="LoRA adapters (a published stepN-lora folder) to merge into SRC.")] = None,
) -> None:
    """Rewrite a checkpoint between the published (safetensors) and the training-side "olmo" (model.pt) layout, or merge adapters into it.

    The keys are checked against the config first. To the published layout one shard is in memory at a time; a
    model.pt is one file, so that direction needs memory for the whole model, as does merging. norm_stats, tokenizer and processor
    files, depth codebook, contract and adoption come along, so that a folder that was adopted is served after it came back.

    Example: actwright model convert runs/step40000-unsharded models/mine --network 7b-d --dtype bfloat16
    """
    if to not in (None, "published", "olmo"):
        raise typer.BadParameter(f"--to must be published or olmo, got {to}")
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"--dtype must be float32, bfloat16 or float16, got {dtype}")

    def rewrite() -> dict[str, Any]:
        from model_core.layout_conversion import ConversionRequest, convert_checkpoint, converted_line

        request = ConversionRequest.named(to=to, dtype=dtype, config=_named(network), adapters=adapters)
        return converted_line(source, destination, convert_checkpoint(source, destination, request))

    told = _readable(rewrite)
    for note in told["notes"]:
        typer.echo(f"note      {note}", err=True)
    typer.echo(json.dumps(told))


def _readable(work: Callable[[], _T]) -> _T:
    """Run `work`; an error of ours becomes its message on stderr and exit code 2."""
    try:
        return work()
    except ActwrightError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNREADABLE) from error


def _verdict(report: ModelParity | ImageParity | VqvaeParity) -> None:
    from model_core.parity import report_line

    typer.echo(report_line(report))
    raise typer.Exit(0 if report.equal else NOT_EQUAL)


def _named(network: str | None) -> MolmoActConfig | None:
    if network is None:
        return None
    from model_core.network.presets import molmoact_7b_d, molmoact_7b_o

    if network not in _NETWORKS:
        raise typer.BadParameter(f"--network must be one of {', '.join(_NETWORKS)}, got {network}")
    return molmoact_7b_d() if network == "7b-d" else molmoact_7b_o()


def _report_json(report: CheckpointReport) -> str:
    from dataclasses import asdict

    return json.dumps(asdict(report), ensure_ascii=False)


def _report_text(report: CheckpointReport) -> str:
    lines = [report.folder]
    sections = {
        "architecture": report.architecture,
        "weights": report.weights,
        "vocabulary": report.vocabulary,
        "contract": report.contract,
    }
    counts = {name: f"{count:,} ({count / 1e9:.3f} B)" for name, count in report.parameters.items()}
    for title, section in {"parameters": counts, **sections}.items():
        lines.append(f"{title}:" if section else f"{title}: none")
        lines += [f"  {name:<16}{value}" for name, value in section.items()]
    lines.append(f"norm_stats: {', '.join(report.norm_stats) or 'none'}")
    for title, entries in (("missing", report.missing), ("broken", report.broken)):
        lines.append(f"{title}:" if entries else f"{title}: nothing")
        lines += [f"  - {entry}" for entry in entries]
    return "\n".join(lines)
