"""The graph of what came from what, and the records that it is built from. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from components.adapters.mlflow.reading.records import VersionRow

Kind = Literal[
    "source", "recording", "annotator", "data set", "recipe", "code", "run", "weights", "version", "bundle", "release", "cell", "episode"
]
KINDS: tuple[Kind, ...] = get_args(Kind)  # from what is used to what is made


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One thing. id: its kind and name. name: whole, as it is looked for. facts: what else is known of it, for a person."""

    id: str
    kind: Kind
    name: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge:
    """used, made: ids of nodes. how: what the one is for the other, such as "labels of depth"."""

    used: str
    made: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageGraph:
    """Nodes from what is used to what is made; edges between them, each pair once."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDataset:
    """A frozen data set. recorded: versions of the raw data that it was made from. sources: who recorded it -> what was handed on of that,
    in words."""

    version: str
    facts: Mapping[str, str]
    annotators: Mapping[str, str]
    recorded: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTraining:
    """A finished training, registered or not. started_from: digest of the checkpoint that it went on from, "" for none that is known."""

    run_id: str
    checkpoint_digest: str
    dataset_version: str
    recipe_digest: str
    started_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBundle:
    """A packed policy, by the digest that a service tells with each answer. contract_id: of what it promises, golden probes included.
    checkpoint: of the training that was packed, "" where that is not known."""

    digest: str
    model_version: str
    contract_id: str
    checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRelease:
    """A release that was made or offered. checkpoint, contract_id: "" where only its label is known."""

    digest: str
    model_version: str
    allowed_by: str = ""
    checkpoint: str = ""
    contract_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCell:
    """A cell that runs or ran a release. when: in words, such as "since 2026-11-30 05:12 UTC"."""

    cell: str
    site: str
    release: str
    is_now: bool
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEpisode:
    """A recorded episode and what answered its decisions, as its audit says. bundle: digest, "" for a policy that was never packed."""

    episode: str
    cell: str
    model_version: str
    contract_id: str
    bundle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageFacts:
    """Everything that is known of what came from what. versions: with their lineage as tags."""

    versions: tuple[VersionRow, ...] = ()
    datasets: tuple[KnownDataset, ...] = ()
    trainings: tuple[KnownTraining, ...] = ()
    bundles: tuple[KnownBundle, ...] = ()
    releases: tuple[KnownRelease, ...] = ()
    cells: tuple[KnownCell, ...] = ()
    episodes: tuple[KnownEpisode, ...] = ()
