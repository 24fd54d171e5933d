"""The tokenizer of 7B-D as the files that the published code opens: `tokenizer.json` and its settings, made of the packaged Qwen2 table.

The table holds the rank of each entry alone; a byte-level BPE file also says of which two entries each was merged. Those are the two that
are left when the entry's bytes are merged by all lower ranks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from model_core.spec.errors import CheckpointError
from model_core.tokenization.published.special_ids import IMAGE_TOKENS, SpecialIds, special_ids_7b_d
from model_core.tokenization.published.text_encoding import QWEN2_PATTERN, byte_to_surface, qwen2_ranks

END_OF_TEXT = "<|endoftext|>"
# Qwen2.5's added tokens in the order of their ids, from the one behind the end of text on; the second part is not marked as special.
_MARKED = (
    "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>",
    "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_UNMARKED = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip


@cache
def tokenizer_files() -> Mapping[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`. Raises `CheckpointError` without the packaged table."""
    roles = {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    settings = {
        **roles,
        "bos_token": END_OF_TEXT,
        "unk_token": None,
        "tokenizer_class": "Qwen2Tokenizer",
        "padding_side": "left",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "errors": "replace",
        "processor_class": "MolmoActProcessor",
    }
    return {
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": _text(settings),
        "special_tokens_map.json": _text({**roles, "bos_token": END_OF_TEXT}),
    }


def _tokenizer() -> bytes:
    """Qwen2's entries and merges, then the added tokens in the published order, in the form of the `tokenizers` library."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    special = special_ids_7b_d()
    letters = str.maketrans({chr(byte): char for byte, char in enumerate(byte_to_surface())})
    ranks = {piece: rank for piece, rank in qwen2_ranks(None).items() if rank < special.eos}
    surface = {piece: piece.decode("latin-1").translate(letters) for piece in ranks}
    empty = Tokenizer(BPE())
    empty.normalizer = normalizers.NFC()
    empty.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    empty.decoder = decoders.ByteLevel()
    made: dict[str, Any] = json.loads(empty.to_str())
    made["model"]["vocab"] = {surface[piece]: rank for piece, rank in ranks.items()}
    made["model"]["merges"] = [f"{surface[left]} {surface[right]}" for left, right in merged_pairs(ranks)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    made["added_tokens"] = [
        {"id": special.eos + number, "content": name, **plain, "special": marked} for number, (name, marked) in enumerate(_added(special))
    ]
    return json.dumps(made, ensure_ascii=False).encode()


def _added(special: SpecialIds) -> Iterator[tuple[str, bool]]:
    """Name of each added token, and whether it is marked as special, in the order of their ids."""
    yield END_OF_TEXT, True
    yield from ((name, True) for name in _MARKED)
    yield from ((name, False) for name in _UNMARKED)
    yield from ((name, False) for name in ("<DEPTH_START>", "<DEPTH_END>", *(f"<DEPTH_{code}>" for code in range(special.num_depth))))
    yield from ((f"|<EXTRA_TOKENS_{number}>|", True) for number in range(len(special.fillers)))
    yield from ((name, True) for name in IMAGE_TOKENS)


def merged_pairs(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Of which two entries each entry of more than one byte is merged, lowest rank first.

    ranks: of a byte-level BPE, every entry's bytes -> its rank. Raises `CheckpointError` for an entry that no two others make.
    """
    return [_pair(piece, rank, ranks) for piece, rank in sorted(ranks.items(), key=lambda item: item[1]) if len(piece) > 1]


def _pair(piece: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    cuts = list(range(len(piece) + 1))  # where the parts begin, and the end of the last
    merged = [ranks.get(piece[at : at + 2], rank) for at in range(len(piece) - 1)]  # by neighbours: the rank of what they would make
    while len(merged) > 1:
        lowest = min(merged)
        if lowest >= rank:
            raise CheckpointError(f"a table of byte pairs: entry {piece!r} of rank {rank} is not made of two entries of lower rank")
        at = merged.index(lowest)
        del cuts[at + 1], merged[at]
        if at < len(merged):
            merged[at] = ranks.get(piece[cuts[at] : cuts[at + 2]], rank)
        if at > 0:
            merged[at - 1] = ranks.get(piece[cuts[at - 1] : cuts[at + 1]], rank)
    return piece[: cuts[1]], piece[cuts[1] :]


def _text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
