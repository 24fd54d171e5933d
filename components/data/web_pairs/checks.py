"""Is a row an image with questions and answers? What is not is set aside with the reason; nothing is repaired or guessed."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from components.data.web_pairs.layouts import RawRow
from model_core.spec.errors import DatasetError

SMALLEST_SIDE = 8
MOST_PIXELS = 2**26
# reasons, as the listing and the account of a training count them
NO_CONVERSATION = "no conversation"
OTHER_SPEAKERS = "turns are not of a person and the model in turn"
NO_TEXT = "a question or answer is empty"
INNER_IMAGE = "the image stands inside a text"
RESERVED = "a token of the model's language stands in a text"
ROBOT = "a robot sample with a drawn trajectory"
NO_IMAGE = "no image"
ADDRESS = "the image is an address, nothing is fetched"
OUTSIDE = "the image lies outside of the folder"
UNREADABLE = "the image cannot be read"
SIZE = "the image is too small or too large"
TWICE = "the same image and texts stood before"

_PEOPLE, _MODELS = ("human", "user"), ("gpt", "assistant")
_IMAGE_TAG = "<image>"
# names of special tokens; the published tokenizer makes special ids of them. Depth tags are words of the language, and allowed
_SPECIAL = re.compile(r"<im_|<\||\|<")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A row that can be trained on. image_path: of the file, "" where a Parquet row holds it. sha256: of the image's bytes."""

    row: int
    image_path: str
    sha256: bytes
    height: int
    width: int
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def content(self) -> bytes:
        """Names image and texts."""
        texts = "\0".join((*self.questions, *self.answers)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(self.sha256 + texts).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A row that cannot. reason: one of this module. detail: what was found."""

    row: int
    reason: str
    detail: str = ""


def judge(raw: RawRow, images: Path) -> Pair | SetAside:
    """What a row is. images: the folder in which image files are named."""
    texts = _questions_and_answers(raw)
    if isinstance(texts, SetAside):
        return texts
    try:
        content = raw.image if raw.image is not None else _file_content(raw.image_path, images)
        pixels_HW3 = decoded(content)
    except _NoImageError as refused:
        return SetAside(row=raw.row, reason=refused.reason, detail=refused.detail)
    questions, answers = texts
    return Pair(
        row=raw.row,
        image_path="" if raw.image is not None else raw.image_path,
        sha256=hashlib.sha256(content).digest(),
        height=pixels_HW3.shape[0],
        width=pixels_HW3.shape[1],
        questions=questions,
        answers=answers,
    )


def decoded(content: bytes) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB. Raises `DatasetError` for one that cannot be read, or whose size no layout is made for."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                width, height = opened.size
                if min(width, height) < SMALLEST_SIDE or width * height > MOST_PIXELS:
                    raise _NoImageError(SIZE, f"{width} x {height} pixels")
                return np.asarray(opened.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _NoImageError(SIZE, str(error)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise _NoImageError(UNREADABLE, str(error)) from error


def image_file(name: str, images: Path) -> Path:
    """The file that a row names. Raises `DatasetError` where it names none, an address, or one outside of `images`."""
    if not name:
        raise _NoImageError(NO_IMAGE)
    if len(urlsplit(name).scheme) > 1:  # one letter is a drive
        raise _NoImageError(ADDRESS, name)
    root = images.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise _NoImageError(OUTSIDE, name)
    return path


class _NoImageError(DatasetError):
    """Why there is no image."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def _file_content(name: str, images: Path) -> bytes:
    path = image_file(name, images)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _NoImageError(UNREADABLE, f"{name}: {error.strerror}") from error


def _questions_and_answers(raw: RawRow) -> tuple[tuple[str, ...], tuple[str, ...]] | SetAside:
    """The texts of the two speakers, blanks and the mark of the image taken away at the ends of the first question."""

    def aside(reason: str, detail: str = "") -> SetAside:
        return SetAside(row=raw.row, reason=reason, detail=detail)

    if raw.annotation:
        return aside(ROBOT)
    if not raw.turns:
        return aside(NO_CONVERSATION)
    speakers = [speaker for speaker, _ in raw.turns]
    if len(speakers) % 2 or any(speaker not in (_MODELS if place % 2 else _PEOPLE) for place, speaker in enumerate(speakers)):
        return aside(OTHER_SPEAKERS, ", ".join(speakers[:4]))
    texts = [text.strip() for _, text in raw.turns]
    texts[0] = texts[0].removeprefix(_IMAGE_TAG).removesuffix(_IMAGE_TAG).strip()
    if not all(texts):
        return aside(NO_TEXT)
    if any(_IMAGE_TAG in text for text in texts):
        return aside(INNER_IMAGE)
    if found := next(filter(None, map(_SPECIAL.search, texts)), None):
        return aside(RESERVED, found.string[max(0, found.start() - 10) : found.end() + 20])
    return tuple(texts[::2]), tuple(texts[1::2])
