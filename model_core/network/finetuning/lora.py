"""Low-rank fine-tuning: adapters on every linear layer, optionally whole new rows, merged or kept beside the model.

The only file that imports `peft`. Adapter folders are in peft's own form (`adapter_config.json`,
`adapter_model.safetensors`), so a published `stepN-lora/` folder is read as it is, training-side names included.

As in the published fine-tuning script the embeddings are frozen, and with them the rows of the depth tokens. Where a
model has to learn depth tokens that it never saw, `depth_rows` makes exactly these rows trainable (input and output side),
and `train_new_embedding` the rows of the image tokens. Both are choices, off by default.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_core.network.checkpoints import layout
from model_core.network.checkpoints.weights import read_header, write_json
from model_core.network.finetuning.adapter_config import CONFIG_FILE, AdapterConfig, read_adapter_config
from model_core.network.finetuning.optimizer import group_of
from model_core.network.finetuning.tuned_rows import TunedRowsEmbedding, TunedRowsHead
from model_core.network.model import MolmoAct
from model_core.spec.errors import CheckpointError, require
from model_core.spec.files import atomic_target

ADAPTER = "default"
WEIGHTS_FILE = "adapter_model.safetensors"
ROWS_FILE = "tuned_rows.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """What is trained. Defaults are the published ones: r 32, alpha 16, no dropout, Gaussian start, every linear layer.

    adapt_head: the output layer is a linear layer too; off leaves it as it is. adapt_tower: the same of the vision tower's layers.
    depth_rows: (first id, count) of the token rows that become trainable, e.g. (151665, 130) for 7B-D; None: frozen.
    """

    rank: int = 32
    alpha: float = 16
    dropout: float = 0.0
    adapt_head: bool = True
    adapt_tower: bool = True
    train_new_embedding: bool = False
    depth_rows: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require(self.rank > 0 and self.alpha > 0, "rank and alpha must be positive", got=(self.rank, self.alpha))
        require(0.0 <= self.dropout < 1.0, "dropout must be 0..1", got=self.dropout)


def add_lora(model: MolmoAct, settings: LoraSettings, *, seed: int = 0) -> MolmoAct:
    """Freeze `model` and put adapters into it, in place. Only adapters and chosen rows require gradients afterwards.

    The adapted model gives exactly the outputs of the bare one until a step is made. Raises CheckpointError when the
    model already carries adapters.
    """
    if is_adapted(model):
        raise CheckpointError("the model already carries adapters; merge them first")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws the start from the global generator
        config = AdapterConfig(rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout)
        names = [name for name in _linear_layers(model, settings.adapt_head) if settings.adapt_tower or group_of(name) != "vit"]
        _inject(model, names, config)
    _tune_rows(model, settings)
    return model


def is_adapted(model: MolmoAct) -> bool:
    """Does `model` carry adapters or tuned rows?"""
    return any("lora_" in name or name.endswith(".difference") for name, _ in model.named_parameters())


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What an optimiser should get: name -> parameter."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def merge_lora(model: MolmoAct) -> MolmoAct:
    """Add adapters and row differences into the weights, in place: a bare `MolmoAct` again, ready for `save_pretrained`.

    Raises CheckpointError where weights are stored with less than 32 bits, before anything is changed: updates are small beside
    the weights, and of bfloat16 sums so much is rounded away that other tokens are chosen.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    coarse = sorted({str(value.dtype) for value in model.parameters() if value.is_floating_point() and value.dtype.itemsize < 4})
    if coarse:
        raise CheckpointError(
            f"adapters are merged into float32 weights, this model holds {', '.join(coarse)}, which round most of an update away. "
            "Fix: load the model with dtype=torch.float32, merge, and choose a smaller dtype when it is saved"
        )
    embedding, head = model.model.transformer.wte, model.lm_head
    if isinstance(head, TunedRowsHead):
        model.lm_head = head.inner  # type: ignore[assignment]
    if isinstance(embedding, TunedRowsEmbedding):
        embedding.inner.embedding[embedding.first :][: len(embedding.difference)] += embedding.difference
        model.model.transformer.wte = embedding.inner
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            _replace(model, name, module.get_base_layer())
    if isinstance(head, TunedRowsHead):
        model.lm_head.weight[head.first :][: len(head.difference)] += head.difference
    return model.requires_grad_(True)


def save_adapters(model: MolmoAct, folder: Path) -> Path:
    """Write the adapters in peft's folder form, and the chosen rows beside them. The model itself is not written."""
    from safetensors.torch import save_file

    if not is_adapted(model):
        raise CheckpointError("the model carries no adapters; nothing to save")
    state = {_PREFIX + name: value.detach().cpu().contiguous() for name, value in _adapters(model).items()}
    with atomic_target(folder / WEIGHTS_FILE) as beside:
        save_file(state, beside, metadata={"format": "pt"})
    rows, first = _chosen_rows(model)
    if rows:
        meta = {"format": "pt", "first": str(first)}
        with atomic_target(folder / ROWS_FILE) as beside:
            save_file(rows, beside, metadata=meta)
    config: Any = model.peft_config
    document = {key: sorted(value) if isinstance(value, set) else value for key, value in config[ADAPTER].to_dict().items()}
    write_json(folder / CONFIG_FILE, json.loads(json.dumps(document, default=str)))
    return folder


def load_adapters(model: MolmoAct, folder: Path) -> MolmoAct:
    """Put saved adapters (ours or a published `stepN-lora/`) into a bare model, in place; they stay trainable.

    Raises CheckpointError for missing files, adapters that are not plain LoRA, names that are no linear layer of this model, or
    other shapes (all listed).
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no adapter folder: {name} is missing")
    if is_adapted(model):
        raise CheckpointError("the model already carries adapters; merge them first")
    config = read_adapter_config(folder)
    headers = dict(read_header(folder / WEIGHTS_FILE))
    stored = {_canonical(name): tensor for name, tensor in headers.items()}
    layers = {_canonical(name).split(".lora_")[0]: name.removeprefix(_PREFIX).split(".lora_")[0] for name in headers}
    linear = set(_linear_layers(model, True))
    strangers = [name for name in sorted(layers) if name not in linear]
    if strangers:
        raise CheckpointError(f"{folder} adapts layers that this model does not have: {strangers}")
    _inject(model, sorted(layers), config.of_layers(layers))
    own = _adapters(model)
    problems = layout.key_problems({k: v.shape for k, v in stored.items()}, {k: tuple(v.shape) for k, v in own.items()})
    if problems:
        raise CheckpointError(f"{folder}: adapters do not fit:\n  " + "\n  ".join(problems))
    with torch.no_grad():
        for name, tensor in stored.items():
            own[name].copy_(tensor.load())
    if (folder / ROWS_FILE).is_file():
        _load_rows(model, folder / ROWS_FILE)
    return model


def _inject(model: MolmoAct, modules: list[str], settings: AdapterConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it, fractions are fine
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilized,
        rank_pattern=dict(settings.rank_pattern),
        alpha_pattern=dict(settings.alpha_pattern),
        bias="none",
        init_lora_weights="gaussian",
        target_modules=modules,
    )
    model.requires_grad_(False)
    inject_adapter_in_model(config, model, ADAPTER)
    model.peft_config = {ADAPTER: config}  # type: ignore[assignment]  # where peft's state-dict functions look


def _tune_rows(model: MolmoAct, settings: LoraSettings) -> None:
    transformer = model.model.transformer
    if settings.train_new_embedding and transformer.wte.new_embedding is not None:
        transformer.wte.new_embedding.requires_grad_(True)
    if settings.depth_rows is None:
        return
    first, count = settings.depth_rows
    rows = len(transformer.wte.embedding)
    require(first >= 0 and count > 0 and first + count <= rows, f"depth_rows must lie in 0..{rows}", got=settings.depth_rows)
    tuned = TunedRowsEmbedding(transformer.wte, first, count)
    transformer.wte = tuned  # type: ignore[assignment]
    model.lm_head = TunedRowsHead(model.lm_head, first, tuned.difference)  # type: ignore[assignment]


def _chosen_rows(model: MolmoAct) -> tuple[dict[str, Tensor], int]:
    rows: dict[str, Tensor] = {}
    first = 0
    embedding = model.model.transformer.wte
    if isinstance(embedding, TunedRowsEmbedding) and isinstance(model.lm_head, TunedRowsHead):
        rows |= {"input": embedding.difference.detach().cpu(), "output": model.lm_head.difference.detach().cpu()}
        first, embedding = embedding.first, embedding.inner
    if embedding.new_embedding is not None and embedding.new_embedding.requires_grad:
        rows["new_embedding"] = embedding.new_embedding.detach().cpu()
    return rows, first


def _load_rows(model: MolmoAct, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        first = int(file.metadata()["first"])
        rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    depth_rows = (first, len(rows["input"])) if "input" in rows else None
    _tune_rows(model, LoraSettings(train_new_embedding="new_embedding" in rows, depth_rows=depth_rows))
    embedding = model.model.transformer.wte
    with torch.no_grad():
        if isinstance(embedding, TunedRowsEmbedding) and isinstance(model.lm_head, TunedRowsHead):
            embedding.difference.copy_(rows["input"])
            model.lm_head.difference.copy_(rows["output"])
            embedding = embedding.inner
        if "new_embedding" in rows and embedding.new_embedding is not None:
            embedding.new_embedding.copy_(rows["new_embedding"])


def _linear_layers(model: MolmoAct, head: bool) -> list[str]:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in names if head or name != "lm_head"]


def _canonical(name: str) -> str:
    """A key of an adapter file -> module path of ours + `.lora_A.weight`; training-side names become published ones."""
    path, _, leaf = name.removeprefix(_PREFIX).partition(".lora_")
    if not path.startswith(("model.", "lm_head")):
        path = layout.to_published(f"{path}.weight").removesuffix(".weight")
    return f"{path}.lora_{leaf.replace(f'{ADAPTER}.', '')}"


def _adapters(model: MolmoAct) -> dict[str, nn.Parameter]:
    """Adapter parameters under the names that peft saves (without its prefix)."""
    own = {name: value for name, value in model.named_parameters() if "lora_" in name}
    return {name.replace(f".{ADAPTER}.", ".").replace("lm_head.inner.", "lm_head."): value for name, value in own.items()}


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, module)
