"""Adopt a folder that is adopted already for one further embodiment: its own statistics, contract and choices, beside those that are there.

No file that the first embodiment is served by is changed: its contract, the weights and every small file stay as they are, and what is
packed of it has the same bytes as before. From then on the folder acts for several, so that serving it names one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from model_core.adoption.document import ADOPTION, CONFIG, VQVAE, AdoptedEmbodiment, is_adopted, read_adoption
from model_core.adoption.loading import open_parts
from model_core.adoption.published_files import chosen_stats, read_config, read_weights
from model_core.contracts import CONTRACT, CONTRACTS, check_names, read_contracts
from model_core.port.adopt import Adopted, AdoptionRequest, contract_of, contract_text, notes_of
from model_core.port.published import PublishedPort
from model_core.spec.errors import CheckpointError
from model_core.spec.files import atomic_write
from model_core.tokenization.depth.codec import DepthCodec


def adopt_beside(folder: Path, request: AdoptionRequest) -> Adopted:
    """Check everything, then write `contracts/<name>.json` and name it in adoption.json, which is written last.

    Raises `CheckpointError` for a folder that is not adopted, or not what was adopted, and for an embodiment that it acts for already;
    `SpecError` for a name that cannot stand beside the others; otherwise as `adopt`.
    """
    name = request.embodiment.name
    if not is_adopted(folder):
        raise CheckpointError(f"{folder} is not adopted for any robot yet. Fix: adopt it without --beside")
    adoption, first = read_adoption(folder), next(iter(read_contracts(folder)))
    known = list(adoption.embodiments) or [first]
    if name in known:
        raise CheckpointError(
            f"{folder} acts for {name!r} already. Fix: serve it with --embodiment {name}, or give the other robot a name of its own"
        )
    adoption.check(folder)
    check_names([*known, name])
    config = read_config(folder)
    stats = chosen_stats(folder, config, request.norm_key, request.dims, beside=request.statistics)
    weights, parts = read_weights(folder, config), open_parts(folder, config, request.language)
    codec = DepthCodec.load(folder / VQVAE) if (folder / VQVAE / CONFIG).is_file() else None
    port = PublishedPort(parts, contract_of(request, stats, parts, codec))
    if not adoption.embodiments:
        of_first = AdoptedEmbodiment(norm_key=adoption.norm_key, policy_id=adoption.policy_id, language=adoption.language)
        adoption = dataclasses.replace(adoption, embodiments={first: of_first})
        atomic_write(folder / CONTRACTS / f"{first}.json", (folder / CONTRACT).read_bytes())
    added = AdoptedEmbodiment(norm_key=request.norm_key, policy_id=port.contract.policy_id, language=request.language)
    atomic_write(folder / CONTRACTS / f"{name}.json", contract_text(port.contract))
    adoption = dataclasses.replace(adoption, embodiments={**adoption.embodiments, name: added})
    atomic_write(folder / ADOPTION, adoption.to_text())
    return Adopted(contract=port.contract, adoption=adoption, notes=tuple(notes_of(port, weights)))
