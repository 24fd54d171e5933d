"""The token ids that are not text: depth tokens inside the base rows, image tokens behind them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from model_core.spec.errors import CheckpointError, require

QWEN2_ENTRIES = 151665  # the BPE table and Qwen2.5's 22 added tokens


IMAGE_TOKENS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>", "<im_low>")


DEPTH_TAG = re.compile(r"<DEPTH_(START|END|\d{1,4})>")


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
        match = DEPTH_TAG.fullmatch(tag)
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


def special_ids_of_file(path: Path) -> SpecialIds:
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
