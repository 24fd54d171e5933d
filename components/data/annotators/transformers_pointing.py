"""Molmo-style pointing: "point to the robot gripper", answered by an image-text-to-text model with points in percent.

Any architecture that transformers has built in (such as Molmo2) loads from a local folder or hub id; never remote code.
Checkpoints of our own network's layout are asked by `components.data.annotators.molmoact_pointing`.
As published: greedy, at most 448 new tokens, the first point tag counts. A frame without a readable point is *not
visible*, never a made-up place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.annotators.interface import Frames, GripperTrack, ImageAnswers
from components.data.annotators.weights import load_pretrained, weights_digest
from model_core.spec.errors import DatasetError

PROMPT = "point to the robot gripper"
MAX_NEW_TOKENS = 448
_NUMBER = r'"\s*(\d{1,3}(?:\.\d+)?)\s*"'
# <point x="61.5" y="40.4" alt="..">, and the first of <points x1=".." y1=".." x2=..>
_TAG = re.compile(rf"<points?\s+x1?={_NUMBER}\s+y1?={_NUMBER}")

# Molmo2: <points coords="1 1 614 404" ..>: image, then point, x and y in thousandths
_COORDS = re.compile(r'<points[^>]*?\scoords="(?:[^"]*?[\s:;,])?\d+ (\d{3,4}) (\d{3,4})[^"]*"')


def parse_point(answer: str, *, width: int, height: int) -> tuple[float, float] | None:
    """Pixel (x, y) of the first point tag of an answer, as published round(percent / 100 * side), inside the image; else None."""
    found, whole = _TAG.search(answer), 100.0
    if found is None:
        found, whole = _COORDS.search(answer), 1000.0
    if found is None:
        return None
    x, y = (float(number) * 100.0 / whole for number in found.groups())
    if x > 100 or y > 100:
        return None
    return float(min(round(x / 100 * width), width - 1)), float(min(round(y / 100 * height), height - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperPointer:
    """One question per image to `ask` (image, prompt -> text), or of several images at once to `ask_all`, where there is one."""

    ask: Callable[[NDArray[np.uint8], str], str]
    name: str
    digest: str
    prompt: str = PROMPT
    batch_size: int = 8
    ask_all: Callable[[NDArray[np.uint8], str], Sequence[str]] | None = None

    @staticmethod
    def load(source: str, *, batch_size: int = 8, device: str = "") -> GripperPointer:
        """Read a folder or hub id. Raises `CheckpointError` naming what is missing."""
        from transformers.models.auto.modeling_auto import AutoModelForImageTextToText
        from transformers.models.auto.processing_auto import AutoProcessor

        model, processor = load_pretrained(source, AutoModelForImageTextToText, AutoProcessor, device=device)
        asker = _Asker(model, processor)
        name = source.rstrip("/").split("/")[-1]
        return GripperPointer(ask=asker, name=name, digest=weights_digest(model), batch_size=batch_size, ask_all=asker.all)

    @property
    def version(self) -> str:
        """Weights and prompt."""
        return f"pointing/1:{self.name}:{self.digest}?prompt={self.prompt}"

    @property
    def provenance(self) -> dict[str, object]:
        """What each label says of where it came from."""
        return {"model": self.name, "weights": self.digest, "prompt": self.prompt}

    @property
    def needs_images(self) -> bool:
        """It needs images."""
        return True

    def annotate(self, frames: Frames) -> GripperTrack:
        """Ask about every frame. Confidence is 1 where there was an answer: the model gives no other."""
        check_pictures(frames)
        return track_of(self._points(frames.images_THW3))

    def answer_images(self, images_NHW3: NDArray[np.uint8]) -> ImageAnswers:
        """A point per image; one without a readable point is not visible, which is an answer."""
        return point_answers(self._points(images_NHW3))

    def _points(self, images_NHW3: NDArray[np.uint8]) -> list[tuple[float, float] | None]:
        height, width = images_NHW3.shape[1:3]
        if self.ask_all is None:
            texts = [self.ask(image, self.prompt) for image in images_NHW3]
        else:
            starts = range(0, len(images_NHW3), self.batch_size)
            texts = [text for start in starts for text in self.ask_all(images_NHW3[start : start + self.batch_size], self.prompt)]
        return [parse_point(text, width=width, height=height) for text in texts]


def check_pictures(frames: Frames) -> None:
    """Raise `DatasetError` unless there is an image for every frame."""
    if len(frames.images_THW3) != frames.count:
        raise DatasetError(f"expected {frames.count} images, got {len(frames.images_THW3)}")


def track_of(found: Sequence[tuple[float, float] | None]) -> GripperTrack:
    """A found place (x, y) is visible with confidence 1, None is not visible."""
    visible_T = np.array([point is not None for point in found], bool)
    points_T2 = np.array([(np.nan, np.nan) if point is None else point for point in found], np.float64).reshape(-1, 2)
    return GripperTrack(points_T2=points_T2, visible_T=visible_T, confidence_T=visible_T.astype(np.float32))


def point_answers(found: Sequence[tuple[float, float] | None]) -> ImageAnswers:
    """Found places as the columns of a batch."""
    track = track_of(found)
    return ImageAnswers(columns={"points": track.points_T2, "visible": track.visible_T, "confidence": track.confidence_T})


class _Asker:
    """A transformers model and its processor as image, prompt -> text, or images, prompt -> texts."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor

    def __call__(self, image_HW3: NDArray[np.uint8], prompt: str) -> str:
        return self.all(image_HW3[None], prompt)[0]

    def all(self, images_NHW3: NDArray[np.uint8], prompt: str) -> list[str]:
        """One question asked of several images of one size: their prompts are equally long, so nothing is padded."""
        import torch
        from PIL import Image

        messages = [
            [{"role": "user", "content": [{"type": "image", "image": Image.fromarray(image_HW3)}, {"type": "text", "text": prompt}]}]
            for image_HW3 in images_NHW3
        ]
        inputs = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self._model.device)
        with torch.inference_mode():
            ids = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers = ids[:, inputs["input_ids"].shape[1] :]
        return [self._processor.tokenizer.decode(answer_ids, skip_special_tokens=True) for answer_ids in answers]
