"""Pointing with our own network: a checkpoint in the published MolmoAct layout answers "point to the robot gripper".

It needs neither remote code nor transformers' processors: `MolmoAct`, `ImageProcessor` and `PromptTokenizer` read the folder.
The question, the greedy decoding, its length and the reading of the answer are those of `components.data.annotators.transformers_pointing`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.data.annotators.interface import Frames, GripperTrack, ImageAnswers
from components.data.annotators.transformers_pointing import (
    MAX_NEW_TOKENS,
    PROMPT,
    check_pictures,
    parse_point,
    point_answers,
    track_of,
)
from components.data.annotators.weights import weights_digest
from model_core.spec.errors import CheckpointError, GrammarError, require

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.network.images import ImageProcessor
    from model_core.network.model import MolmoAct
    from model_core.tokenization.published.tokenizer import PromptTokenizer

log = logging.getLogger(__name__)

MODEL_TYPE = "molmoact"
SECTIONS = ("vit_config", "llm_config")


def is_own_checkpoint(source: str) -> bool:
    """Whether the `config.json` of a folder or hub id names our network, by `model_type` or by the published sub-configs.

    False where there is no config to read: the code that loads the source then states what is missing.
    """
    from transformers.configuration_utils import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(source)
    except (OSError, ValueError):
        return False
    return config.get("model_type") == MODEL_TYPE or all(key in config for key in SECTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPointing:
    """Batches of frames to `answer` (images BHW3, prompt, most new tokens -> one text per image).

    An answer of None is one that no text stands for. The version is made of weights, prompt and length.
    """

    answer: Callable[[NDArray[np.uint8], str, int], Sequence[str | None]]
    name: str
    digest: str
    batch_size: int = 8
    prompt: str = PROMPT
    max_new_tokens: int = MAX_NEW_TOKENS

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size must be at least 1", got=self.batch_size)
        require(self.max_new_tokens >= 1, "max_new_tokens must be at least 1", got=self.max_new_tokens)

    @staticmethod
    def load(source: str, *, batch_size: int = 8, device: str = "", max_new_tokens: int = MAX_NEW_TOKENS) -> OwnPointing:
        """Read a folder or hub id: on a GPU where there is one, in bfloat16 there, else as stored.

        Raises `CheckpointError` where files are missing or do not fit together.
        """
        import torch

        from model_core.network.checkpoints.hub import load_pretrained, resolve
        from model_core.network.images import ImageProcessor
        from model_core.tokenization.published.tokenizer import PromptTokenizer

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = resolve(source)
        tokenizer = PromptTokenizer.load(folder)
        model = load_pretrained(folder, device=device, dtype=torch.bfloat16 if device.startswith("cuda") else None)
        config = model.config
        if tokenizer.special.im_patch != config.image_patch_id or config.llm.num_slots:
            raise CheckpointError(
                f"{source!r} cannot answer in words: expected image patches at id {config.image_patch_id} and no fixed slots, got a "
                f"tokenizer with id {tokenizer.special.im_patch} and {config.llm.num_slots} slots. Fix: name a checkpoint that writes text"
            )
        settings = folder / "preprocessor_config.json"
        images = ImageProcessor.from_json(settings) if settings.is_file() else ImageProcessor.for_network(config)
        return OwnPointing(
            answer=_Speaker(model, images, tokenizer),
            name=source.rstrip("/").split("/")[-1],
            digest=weights_digest(model),
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )

    @property
    def version(self) -> str:
        """Weights, prompt and length; the batch size changes no answer."""
        return f"own-pointing/1:{self.name}:{self.digest}?prompt={self.prompt}&tokens={self.max_new_tokens}"

    @property
    def provenance(self) -> dict[str, object]:
        """What each label says of where it came from."""
        return {"model": self.name, "weights": self.digest, "prompt": self.prompt, "max_new_tokens": self.max_new_tokens}

    @property
    def needs_images(self) -> bool:
        """It needs images."""
        return True

    def annotate(self, frames: Frames) -> GripperTrack:
        """Ask about every frame. A frame without a readable point is not visible, and the log states what was answered instead."""
        check_pictures(frames)
        return track_of(self._points(frames.images_THW3))

    def answer_images(self, images_NHW3: NDArray[np.uint8]) -> ImageAnswers:
        """A point per image; one without a readable point is not visible, which is an answer."""
        return point_answers(self._points(images_NHW3))

    def _points(self, images_NHW3: NDArray[np.uint8]) -> list[tuple[float, float] | None]:
        height, width = images_NHW3.shape[1:3]
        points: list[tuple[float, float] | None] = []
        for start in range(0, len(images_NHW3), self.batch_size):
            part = images_NHW3[start : start + self.batch_size]
            answers = self.answer(part, self.prompt, self.max_new_tokens)
            require(len(answers) == len(part), f"expected {len(part)} answers", got=len(answers))
            for answer in answers:
                point = None if answer is None else parse_point(answer, width=width, height=height)
                if point is None:
                    answer = "ids that stand for no text" if answer is None else repr(answer[:80])
                    log.warning("frame %d: no gripper point in the answer of %s: %s", len(points), self.name, answer)
                points.append(point)
        return points


class _Speaker:
    """A network, its image processor and its tokenizer as images, prompt -> texts."""

    def __init__(self, model: MolmoAct, images: ImageProcessor, tokenizer: PromptTokenizer) -> None:
        self._model, self._images, self._tokenizer = model, images, tokenizer

    def __call__(self, images_BHW3: NDArray[np.uint8], prompt: str, max_new_tokens: int) -> list[str | None]:
        import torch

        from model_core.network.image_inputs import collate_images
        from model_core.tokenization.published.tokenizer import pad_left

        seen = [self._images([image]) for image in images_BHW3]
        prompts = [self._tokenizer.prompt_ids(prompt, sample.image_grids) for sample in seen]
        ids, mask = pad_left(prompts, self._tokenizer.special.pad)
        device = self._model.lm_head.weight.device
        inputs = {name: tensor.to(device) for name, tensor in collate_images(seen).items()}
        with torch.inference_mode():
            features = self._model.encode_images(**inputs)
            eos = self._tokenizer.special.eos
            written = continuation(
                self._model, torch.from_numpy(ids).to(device), features, torch.from_numpy(mask).to(device), eos=eos, most=max_new_tokens
            )
        return [self._text(row) for row in written]

    def _text(self, ids: Sequence[int]) -> str | None:
        try:
            return self._tokenizer.decode(ids)
        except GrammarError:
            return None


def continuation(model: MolmoAct, input_ids_BL: Tensor, features_ND: Tensor, mask_BL: Tensor, *, eos: int, most: int) -> list[list[int]]:
    """The most likely ids of each row up to its `eos` (left out), at most `most`; padding is on the left.

    Prefill once, then a token a step through a cache, until every row has ended.
    """
    import torch

    from model_core.engine.cache import StaticCache
    from model_core.network.model import default_position_ids

    batch, length = input_ids_BL.shape
    head = model.lm_head.weight
    cache = StaticCache(model.config.llm, batch=batch, max_length=length + most, dtype=head.dtype, device=head.device)
    positions_BL = default_position_ids(input_ids_BL, mask_BL)
    h_BLD = model.trunk(model.embed(input_ids_BL, features_ND), positions_BL, mask_BL, cache)
    ended_B1 = torch.zeros(batch, 1, dtype=torch.bool, device=head.device)
    written: list[Tensor] = []
    for _ in range(most):
        token_B1 = model.logits(h_BLD[:, -1:]).argmax(-1).masked_fill(ended_B1, eos)
        written.append(token_B1)
        ended_B1 = ended_B1 | (token_B1 == eos)
        if len(written) == most or bool(ended_B1.all()):
            break
        mask_BL = torch.cat([mask_BL, torch.ones_like(token_B1)], dim=1)
        positions_BL = positions_BL[:, -1:] + 1
        h_BLD = model.trunk(model.embed(token_B1), positions_BL, mask_BL, cache)
    rows = torch.cat(written, dim=1).tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]
