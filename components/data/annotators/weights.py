"""Opening other people's networks: local folder or hub, safetensors only, never their code; and a digest of what was opened."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from model_core.spec.errors import CheckpointError


def load_pretrained(source: str, model_class: Any, processor_class: Any, *, device: str = "") -> tuple[Any, Any]:
    """(model, processor) through two transformers auto classes, ready to answer on `device` (default: a GPU where there is one).

    Images are prepared by Pillow, also where torchvision is installed, whose pixels differ by up to 2 of 255: equal versions of an
    annotator give equal labels. Raises `CheckpointError` naming the source where files or weights are missing (the library draws them at
    random), the hub is out of reach or the architecture is not built in.
    """
    _check_one_save(Path(source))
    try:
        processor = processor_class.from_pretrained(source, trust_remote_code=False, backend="pil")
        model, found = model_class.from_pretrained(source, trust_remote_code=False, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(
            f"cannot open {source!r} as {model_class.__name__}: {error}. Fix: give a local folder with config, processor and safetensors, "
            "or a hub id of an architecture that transformers has built in"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError(
            f"{source!r} lacks {len(missing)} weights of {type(model).__name__}, the first {missing[0]}; they would be random. "
            "Fix: give the whole checkpoint of this architecture"
        )
    import torch

    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor


def _check_one_save(folder: Path) -> None:
    """Transformers takes one of several sets without a word, and of a key in two shards the one that it reads last."""
    from model_core.network.checkpoints.shards import only_set, strangers

    if folder.is_dir():
        only_set(folder)
        if found := strangers(folder):
            raise CheckpointError(f"{folder} holds weights of more than one save:\n  " + "\n  ".join(found))


def weights_digest(model: Any) -> str:
    """12 hex digits over all weights by name: part of an annotator's version."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if flat.numel():
            total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:12]
