"""Checkpoint folders and hub ids -> a loaded `MolmoAct`, and back. The only file that knows the Hugging Face hub.

Never `trust_remote_code`, never pickle: safetensors, or `model.pt` through torch's weights-only loader.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from model_core.network.checkpoints import layout
from model_core.network.checkpoints.layout import Layout
from model_core.network.checkpoints.rounding import Rounding, narrows
from model_core.network.checkpoints.shards import stored_tensors, strangers
from model_core.network.checkpoints.weights import INDEX_FILE, PICKLE_FILE, SINGLE_FILE, StoredTensor, write_json, write_shards
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.network.int8.stored import is_int8, refuse_int8
from model_core.network.model import MolmoAct
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_target, atomic_write

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "vae-final.pt"]
DEFAULT_SHARD_BYTES = 5_000_000_000
BESIDE = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "qwen.tiktoken", "special_tokens_map.json")
BESIDE += ("added_tokens.json", "chat_template.json", "chat_template.jinja", "generation_config.json", "preprocessor_config.json")
BESIDE += ("processor_config.json",)
_CODE = "*.py"  # of a release: carried as bytes for programs that open the folder by it, never imported here


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint folder that was looked at but not loaded. `tensors` are under the published keys.

    rounded_to_zero: how many numbers a conversion into this folder made zero.
    """

    folder: Path
    config: MolmoActConfig
    layout: Layout
    tensors: Mapping[str, StoredTensor]
    rounded_to_zero: int = 0

    def problems(self) -> list[str]:
        """Missing, unexpected and wrongly shaped keys, one line each."""
        found = {key: tensor.shape for key, tensor in self.tensors.items()}
        types = {key: tensor.dtype for key, tensor in self.tensors.items()}
        return layout.key_problems(found, layout.expected_shapes(self.config)) + layout.type_problems(types, self.config)

    def check(self) -> None:
        """Raise one CheckpointError that lists every problem."""
        problems = self.problems()
        if problems:
            lines = "\n  ".join(problems)
            raise CheckpointError(f"{self.folder}: {len(problems)} keys do not fit the configured network:\n  {lines}")


def open_checkpoint(folder: Path, config: MolmoActConfig | None = None) -> CheckpointFiles:
    """Read the config and the headers of the weights; nothing is loaded.

    config: needed where the folder has no `config.json`, as with training-side folders (`config.yaml` is not read).
    Raises CheckpointError when something is missing or torn.
    """
    if config is None:
        if not (folder / "config.json").is_file() and (folder / "config.yaml").is_file():
            raise CheckpointError(
                f"{folder} is a training-side folder (config.yaml, no config.json); say which network it is, "
                "e.g. config=molmoact_7b_d(), or put the published config.json beside it"
            )
        config = MolmoActConfig.from_json(folder)
    stored = stored_tensors(folder)
    kind = layout.detect_layout(stored)
    tensors = {layout.to_published(key): value for key, value in stored.items()} if kind == "olmo" else stored
    if layout.PAD_EMBED in tensors and config.adapter.image_padding_embed is None:
        # Some published configs leave the key out although the weights are there.
        config = replace(config, adapter=replace(config.adapter, image_padding_embed="pad_and_partial_pad"))
    return CheckpointFiles(folder=folder, config=config, layout=kind, tensors=tensors)


def load_pretrained(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: MolmoActConfig | None = None,
    revision: str | None = None,
    attention: str | None = None,
) -> MolmoAct:
    """Load a checkpoint folder (published or training-side layout) or a hub id, in evaluation mode.

    The network is built on the meta device and filled tensor by tensor in `dtype` (default: as stored) on `device`;
    at no time are there two copies of it. attention: "sdpa" or "eager" in place of the config's. int8 weights stay int8, and what is
    beside them is float32.
    Raises CheckpointError: nothing there, hub not reachable, keys and shapes that do not fit (all listed at once), or numbers that
    `dtype` cannot hold.
    """
    files = open_checkpoint(resolve(source, revision=revision), config)
    files.check()
    settings = files.config if attention is None else replace(files.config, attention=attention)
    quantized = is_int8(settings.extras)
    if quantized and dtype not in (None, torch.float32):
        raise CheckpointError(f"{files.folder} has int8 weights, whose activations are float32, not {dtype}. Fix: choose float32")
    for line in strangers(files.folder):
        log.warning("weights.stranger folder=%s %s", files.folder, line)
    with torch.device("meta"):
        model = MolmoAct(settings)
    rounding = Rounding(torch.float32 if quantized else dtype)
    for name, tensor in sorted(files.tensors.items(), key=lambda item: (item[1].file, item[0])):
        kept = tensor.dtype if tensor.dtype is torch.int8 else rounding.dtype
        _assign(model, name, tensor.load(kept, device, lost=rounding.of(name)))
    rounding.check(files.folder)
    log.info("loaded %d tensors from %s (%s layout)", len(files.tensors), files.folder, files.layout)
    return model.eval()


def save_pretrained(
    model: MolmoAct,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    processor: ImageProcessor | None = None,
) -> Path:
    """Write the published layout: `config.json`, safetensors (shards and an index above `max_shard_bytes`).

    processor: also written, as `preprocessor_config.json`. Returns the folder. Raises CheckpointError before anything is written: for a
    model that is not what its config says, for numbers that `dtype` cannot hold, and for a folder with a `model.pt`.
    """
    folder = Path(folder)
    expected = layout.expected_shapes(model.config)
    problems = layout.key_problems({name: tuple(value.shape) for name, value in model.named_parameters()}, expected)
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(f"this model is not what its config says (adapters that were not merged?):\n  {listed}")
    if (folder / PICKLE_FILE).exists():
        raise CheckpointError(f"{folder} holds {PICKLE_FILE}, another set of weights. Fix: save into another folder, or move it away")
    if dtype is not None:
        rounding = Rounding(dtype)
        for name, value in model.named_parameters():
            rounding.of(name).count(value.detach(), value.detach().to(dtype))
        rounding.check(f"model for {folder}")
    tensors = {
        name: (tuple(value.shape), dtype or value.dtype, lambda value=value: value.detach().to("cpu", dtype or value.dtype))
        for name, value in model.named_parameters()
    }
    write_shards(folder, tensors, max_shard_bytes=max_shard_bytes)
    stored = {dtype or value.dtype for value in model.parameters() if value.is_floating_point()}
    write_json(folder / "config.json", layout.stored_as(model.config, stored.pop() if len(stored) == 1 else None).to_json())
    if processor is not None:
        write_json(folder / "preprocessor_config.json", processor.to_json())
    return folder


def convert(
    source: str | Path,
    destination: Path,
    *,
    target: Layout | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    config: MolmoActConfig | None = None,
) -> CheckpointFiles:
    """Rewrite a checkpoint in the other (or the named) layout and dtype, one shard in memory at a time.

    The training-side layout is one `model.pt`, as its trainer reads it. Tokenizer and processor files are copied; contract, adoption and
    codebook are the business of `model_core.layout_conversion`. Raises CheckpointError, before anything is written, when the source's keys
    do not fit its config or its numbers do not fit `dtype`: a wrong checkpoint is not copied on.
    """
    files = open_checkpoint(resolve(source), config)
    refuse_int8(files.config.extras, files.folder, "converted")
    files.check()
    check_destination(files.folder, destination)
    rounding = _rounding_of(files, dtype)
    rounding.check(files.folder)
    goal: Layout = target or ("olmo" if files.layout == "published" else "published")
    if goal == "published":
        tensors: dict[str, tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]] = {
            name: (stored.shape, dtype or stored.dtype, lambda stored=stored: stored.load(dtype)) for name, stored in files.tensors.items()
        }
        write_shards(destination, tensors, max_shard_bytes=max_shard_bytes)
    else:
        state = {layout.to_olmo(name): stored.load(dtype) for name, stored in files.tensors.items()}
        with atomic_target(destination / PICKLE_FILE) as waiting:
            torch.save(state, waiting)
    write_json(destination / "config.json", layout.stored_as(files.config, dtype).to_json())
    for name in beside(files.folder):
        atomic_write(destination / name, (files.folder / name).read_bytes())
    return replace(open_checkpoint(destination), rounded_to_zero=rounding.zeros)


def check_destination(source: Path, destination: Path) -> None:
    """Raise CheckpointError where a rewritten checkpoint would lie in its source's folder, or among other weights."""
    if destination.resolve() == source.resolve():
        raise CheckpointError(f"source and destination are the same folder: {destination}")
    present = [name for name in (INDEX_FILE, SINGLE_FILE, PICKLE_FILE) if (destination / name).exists()]
    if present:
        raise CheckpointError(f"{destination} already holds weights ({', '.join(present)}); convert into an empty folder")


def beside(folder: Path) -> list[str]:
    """Names of the files of `folder` that the published code reads beside weights and config.json: tokenizer, processor, its own code."""
    return [*(name for name in BESIDE if (folder / name).is_file()), *sorted(path.name for path in folder.glob(_CODE))]


def _rounding_of(files: CheckpointFiles, dtype: torch.dtype | None) -> Rounding:
    """What the weights would lose in `dtype`, counted; nothing is read where it can hold all that they are stored as."""
    rounding = Rounding(dtype)
    for name, stored in files.tensors.items():
        if dtype is not None and narrows(stored.dtype, dtype):
            stored.load(dtype, lost=rounding.of(name))
    return rounding


def resolve(source: str | Path, *, revision: str | None = None, fetch: bool = True) -> Path:
    """A local folder as it is; a hub id (`owner/name`) as its downloaded snapshot. fetch: off takes only what was downloaded before.

    Raises CheckpointError that says which of the two it took `source` for and why it did not work.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if isinstance(source, Path) or not _HUB_ID.match(source):
        raise CheckpointError(f"no checkpoint folder at {source}; expected a folder or a hub id such as allenai/MolmoAct-7B-D-0812")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES, local_files_only=not fetch))
    except Exception as error:  # the client raises its own, httpx's and OS errors; each means the same to a caller
        raise CheckpointError(
            f"{source} is no local folder, so it was taken for a hub id, but the hub could not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}). "
            "Without a network, download the checkpoint elsewhere and pass its folder."
        ) from error


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    setattr(owner, leaf, nn.Parameter(value, requires_grad=value.is_floating_point()))
