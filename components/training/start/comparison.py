"""What the checkpoint in `train.init_from` was made for, compared field by field with what this training makes.

A weight means what it was trained to mean: the same number of a row, a slot or an action bin must stand for the same thing. Words
may differ, their rows are carried by word (`carried_rows`); every other difference is refused. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from components.config.recipe import Recipe
from components.config.train_config import start_folder
from model_core.contracts import chosen_contract, read_contracts
from model_core.spec.contract import EmbodimentSpec, PolicyContract, ReasoningSpec, mismatches
from model_core.spec.errors import CheckpointError
from model_core.spec.stats import UnnormStats

# of what a model predicts before it acts; which levels may be asked for, and the kind, are chosen by each training
_REASONING = ("depth_grid", "depth_codes", "codebook_digest", "trace_points", "trace_range", "trace_camera", "spelling")
_STATISTICS = ("q01", "q99", "mask")


def start_digest(start: str) -> str:
    """Names what the folder that a training starts from holds; "" for fresh weights and for a hub id, which has a revision."""
    from components.artifacts.files import dataset_digest

    folder = start_folder(start)
    return dataset_digest(folder) if start and folder.is_dir() else ""


def read_start_contract(folder: Path, embodiment: str = "") -> PolicyContract:
    """The contract of the checkpoint that a training goes on from; of several that of `embodiment`. Raises `CheckpointError`."""
    contracts = _contracts(folder)
    return chosen_contract(contracts, embodiment if len(contracts) > 1 else "", f"train.init_from {folder}")


def _contracts(folder: Path) -> dict[str, PolicyContract]:
    try:
        return read_contracts(folder)
    except CheckpointError as error:
        raise CheckpointError(f"train.init_from {folder}: contract.json cannot be read: {error}. Fix: name a whole checkpoint") from error


def check_recipe(recipe: Recipe, body: EmbodimentSpec, *further: EmbodimentSpec) -> None:
    """Refuse a start that the recipe alone shows not to fit, before its data are made; body: of the recipe's simulator or sources.

    further: of the other embodiments of the recipe's sources; one that the start was not trained for begins with fresh rows, but at least
    one must be known. Statistics and codebook are only known of the frozen data: `check_contract`. Raises `CheckpointError` with every
    difference.
    """
    folder = start_folder(recipe.train.init_from)
    bodies = [body, *further]
    if further:
        known = _contracts(folder)
        bodies = [one for one in bodies if one.name in known] or bodies[:1]
    lines: list[str] = []
    for one in bodies:
        start = read_start_contract(folder, one.name)
        lines += _of_body(start, one)
        lines += _line("freeze.chunk_length", start.chunk_length, recipe.freeze.chunk_length)
    lines += network_differences(folder, recipe.train.network)
    _refuse(folder, lines)


def check_contract(folder: Path, start: PolicyContract, now: PolicyContract) -> None:
    """Refuse a start that was made for something else than `now`; raises `CheckpointError` with every difference and what to do."""
    lines = _of_body(start, now.embodiment)
    lines += _line("chunk_length", start.chunk_length, now.chunk_length)
    lines += [line for name in _REASONING for line in _line(f"reasoning.{name}", _part(start.reasoning, name), _part(now.reasoning, name))]
    lines += [line for name in _STATISTICS for line in _line(f"stats.{name}", _part(start.stats, name), _part(now.stats, name))]
    _refuse(folder, lines)


def network_differences(folder: Path, network: object) -> list[str]:
    """Sizes in which the checkpoint's network differs from `train.network`, one line each."""
    from model_core.network.config import MolmoActConfig
    from model_core.tiny import TinySize

    size, config = TinySize.of(network), MolmoActConfig.from_json(folder)  # type: ignore[arg-type]
    llm = config.llm
    pairs = {
        "width": (llm.hidden_size, size.width),
        "layers": (llm.num_hidden_layers, size.layers),
        "heads": (llm.num_attention_heads, size.heads),
        "kv_heads": (llm.num_key_value_heads, size.kv_heads),
        "feed_forward": (llm.intermediate_size, size.feed_forward),
        "projector": (config.adapter.intermediate_size, size.projector),
        "stem": (tuple(config.vit.stem_channels), size.stem),
        "rope": (llm.use_rope, size.rope),
    }
    return [line for name, (was, is_now) in pairs.items() for line in _line(f"train.network.{name}", was, is_now)]


def _of_body(start: PolicyContract, body: EmbodimentSpec) -> list[str]:
    return [line for found in mismatches(start.embodiment, body) for line in _line(f"body.{found.field}", found.made_for, found.offered)]


def _part(value: ReasoningSpec | UnnormStats, name: str) -> object:
    found = getattr(value, name)
    return tuple(found) if isinstance(found, list | tuple) else found


def _line(field: str, start: object, now: object) -> list[str]:
    return [] if start == now else [f"{field}: the start was trained with {_short(start)}, this training has {_short(now)}"]


def _short(value: object) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else f"{value!r:.160}"


def _refuse(folder: Path, lines: Iterable[str]) -> None:
    found = list(lines)
    if not found:
        return
    fixes = [
        f"annotate.codebook={folder}/vqvae keeps its depth codebook" if any("codebook" in line for line in found) else "",
        f"freeze.statistics={folder} keeps its statistics" if any(line.startswith("stats.") for line in found) else "",
    ]
    kept = " and ".join(fix for fix in fixes if fix)
    raise CheckpointError(
        f"train.init_from {folder}: this checkpoint is of something else, and its weights would be used for what they do not mean:\n  "
        + "\n  ".join(found)
        + f"\nFix: {f'--set {kept}; for the rest ' if kept else ''}name a checkpoint of the same body, network and chunk, "
        "or train without train.init_from"
    )
