"""A loaded policy with its golden probes, and the identity under which a service answers with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from model_core.spec.contract import PolicyContract
from model_core.spec.execution.novelty import NoveltyReference
from model_core.spec.types import Policy
from serving.gateway.inference.golden_probes import RecordedProbe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A policy with its contract and its golden probes. bundle_digest: of the packed files, "" for what was never packed.

    novelty: of what it was trained on; None where the bundle does not hold it, and novelty is not measured.
    """

    policy: Policy
    contract: PolicyContract
    model_version: str
    probes: list[RecordedProbe] = field(default_factory=list)
    bundle_digest: str = ""
    novelty: NoveltyReference | None = None

    @property
    def identity(self) -> ServedModel:
        """Its identity, as cells and operators see it."""
        return ServedModel(contract=self.contract, model_version=self.model_version, bundle_digest=self.bundle_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Which model answers, under which contract."""

    contract: PolicyContract
    model_version: str
    bundle_digest: str = ""
    contract_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "contract_id", self.contract.contract_id)  # computed once: it is a digest of the whole contract
