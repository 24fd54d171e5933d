"""`adoption.json` in a folder of the published layout: what the published files don't say and a person chose, and for which files it holds.

The contract beside it says what the numbers of the robot mean. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from model_core.contracts import CONTRACT, CONTRACTS
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import CheckpointError, SpecError

ADOPTION = "adoption.json"
FORMAT = 1
TOKENIZERS = ("tokenizer.json", "vocab.json", "qwen.tiktoken")
CONFIG, PREPROCESSOR, VQVAE = "config.json", "preprocessor_config.json", "vqvae"
_ADOPT_AGAIN = "Fix: look at what changed, then adopt the folder again: actwright model adopt {folder} --replace ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageChoices:
    """How a published checkpoint is asked and answers.

    wording: whose sentences it was trained on (`published.grammar.Style`). decoding: "constrained" scores only ids that the language allows
    at each place, "faithful" gives token for token what greedy decoding over the whole vocabulary gives, and refuses an answer outside the
    language. images: "sound", or "published" with the published processor's defects (`ImageProcessor`). dtype: of the weights.
    steering: how a drawn trace is shown to the network: "training" draws it as in training on the image as it is, "published" as the
    published steering programs do, on the image resized to 256 x 256 (`overlays.styles`).
    """

    wording: Literal["released", "quick-start", "finetuned"] = "released"
    decoding: Literal["constrained", "faithful"] = "constrained"
    images: Literal["sound", "published"] = "sound"
    dtype: Literal["float32", "bfloat16"] = "float32"
    steering: Literal["training", "published"] = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedEmbodiment:
    """What was chosen for one of several embodiments: as the fields of these names in `Adoption`."""

    norm_key: str
    policy_id: str
    language: LanguageChoices = LanguageChoices()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """norm_key: which entry of `norm_stats` the contract's statistics are. policy_id: of the contract beside it.

    files: SHA-256 of every small file that decides an answer, by path. weights: bytes of every weight file. embodiments: by name, where the
    network acts for several; the fields above are then those of the first, whose contract is contract.json.
    """

    norm_key: str
    policy_id: str
    files: Mapping[str, str]
    weights: Mapping[str, int]
    language: LanguageChoices = LanguageChoices()
    embodiments: Mapping[str, AdoptedEmbodiment] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def names(self) -> tuple[str, ...]:
        """Everything in the folder that serving needs; what else lies there (code, pickles) is never read."""
        contracts = (f"{CONTRACTS}/{name}.json" for name in sorted(self.embodiments))
        return (ADOPTION, CONTRACT, *contracts, *sorted(self.files), *sorted(self.weights))

    def of(self, embodiment: str) -> Adoption:
        """The adoption for one embodiment alone."""
        chosen = self.embodiments.get(embodiment)
        if chosen is None:
            return self
        return replace(self, norm_key=chosen.norm_key, policy_id=chosen.policy_id, language=chosen.language, embodiments={})

    def to_text(self) -> str:
        """The file's content."""
        document = to_document(self)
        if not self.embodiments:
            del document["embodiments"]  # as before there could be several
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    def check(self, folder: Path) -> None:
        """Raise `CheckpointError` naming the first file that is not the one that was adopted."""
        again = _ADOPT_AGAIN.format(folder=folder)
        for name, digest in self.files.items():
            path = folder / name
            if not path.is_file() or digest_of_file(path) != digest:
                what = "has another content than" if path.is_file() else "is missing, which was there"
                raise CheckpointError(f"{path} {what} when this folder was adopted, so {CONTRACT} does not hold for it. {again}")
        for name, size in self.weights.items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                got = "no such file" if found is None else f"{found} bytes"
                raise CheckpointError(f"{path}: expected the weights that were adopted, {size} bytes, got {got}. {again}")


def is_adopted(folder: Path) -> bool:
    """Whether a folder in the published layout was adopted."""
    return (folder / ADOPTION).is_file()


def read_adoption(folder: Path) -> Adoption:
    """The adoption of a folder. Raises `CheckpointError` for a file that cannot be read."""
    path = folder / ADOPTION
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        found = from_document(Adoption, document, where=ADOPTION)
    except (OSError, ValueError, SpecError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. {_ADOPT_AGAIN.format(folder=folder)}") from error
    if found.format != FORMAT:
        raise CheckpointError(
            f"{path}: format is {found.format}, this version reads {FORMAT}. Fix: use the version of Actwright that wrote it"
        )
    return found


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def not_adopted(folder: Path) -> str:
    """What to do with `folder`, where it holds a published checkpoint that was not adopted; "" for any other folder."""
    try:
        config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict) or "llm_config" not in config or "compact_layout" in config:
        return ""
    return (
        "it is a checkpoint in the published layout, whose files don't say what a robot must know (camera order, units, rate, ...). "
        f"Fix: state it once with `actwright model adopt {folder} --embodiment FILE --norm-key KEY --chunk-length ROWS`"
    )
