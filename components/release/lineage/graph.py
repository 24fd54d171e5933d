"""From records to the graph of what came from what, and walks in it. Pure.

An edge is drawn only where a digest or a name on record says so. A release that is known by its label alone hangs on the version of that
label. An episode hangs on the bundle that answered it; where that is not on record, on the version of its label, and says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from components.adapters.mlflow.reading.records import VersionRow
from components.release.lineage.documents import (
    KINDS,
    Kind,
    KnownBundle,
    KnownCell,
    KnownDataset,
    KnownEpisode,
    KnownRelease,
    KnownTraining,
    LineageEdge,
    LineageFacts,
    LineageGraph,
    LineageNode,
)

SHORTEST = 4  # digits that name something: fewer would name half of everything
_ANNOTATOR, _POLICY = "annotator.", "policy:"
_SHOWN = ("verdict", "evaluation", "evaluation_interval", "contract_id", "policy_kind", "replaced")  # of a version's tags, as its facts


def lineage_graph(facts: LineageFacts) -> LineageGraph:
    """The whole graph: every thing once, with what is known of it from any record."""
    made = _Growing()
    for dataset in facts.datasets:
        _add_dataset(made, dataset)
    for training in facts.trainings:
        _add_training(made, training)
    for row in facts.versions:
        _add_version(made, row)
    for bundle in facts.bundles:
        _add_bundle(made, bundle)
    for release in facts.releases:
        _add_release(made, release)
    for cell in facts.cells:
        _add_cell(made, cell)
    for episode in facts.episodes:
        _add_episode(made, episode)
    for source in [node for node in made.nodes.values() if node.kind == "source" and node.name.startswith(_POLICY)]:
        made.edge(f"version:{source.name.removeprefix(_POLICY)}", source.id, "acted")
    return made.graph()


def named(graph: LineageGraph, what: str) -> list[str]:
    """Ids of what a person named: by its id, its whole name, the first digits of it (at least `SHORTEST`), else by a fact of it, such as
    the contract of a version."""
    exact = [node.id for node in graph.nodes if what in (node.id, node.name)]
    if exact or len(what) < SHORTEST:
        return exact
    begun = [node.id for node in graph.nodes if node.name.startswith(what)]
    return begun or [node.id for node in graph.nodes if any(value.startswith(what) for value in node.facts.values())]


def made_of(graph: LineageGraph, starts: Iterable[str]) -> LineageGraph:
    """These and all that they were made of, at any distance."""
    return _reached(graph, starts, {one.made: [] for one in graph.edges}, backwards=True)


def made_with(graph: LineageGraph, starts: Iterable[str]) -> LineageGraph:
    """These and all that was made with them, at any distance."""
    return _reached(graph, starts, {one.used: [] for one in graph.edges}, backwards=False)


def both_ways(graph: LineageGraph, starts: Sequence[str]) -> LineageGraph:
    """These, what they were made of, and what was made with them; not what else came of their parts."""
    parts = [made_of(graph, starts), made_with(graph, starts)]
    ids = {node.id for part in parts for node in part.nodes}
    edges = {(edge.used, edge.made) for part in parts for edge in part.edges}
    return LineageGraph(
        nodes=tuple(node for node in graph.nodes if node.id in ids),
        edges=tuple(edge for edge in graph.edges if (edge.used, edge.made) in edges),
    )


def _reached(graph: LineageGraph, starts: Iterable[str], following: dict[str, list[LineageEdge]], *, backwards: bool) -> LineageGraph:
    for edge in graph.edges:
        following[edge.made if backwards else edge.used].append(edge)
    waiting, seen, edges = list(starts), set[str](), set[tuple[str, str]]()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for edge in following.get(here, ()):
            edges.add((edge.used, edge.made))
            waiting.append(edge.used if backwards else edge.made)
    return LineageGraph(
        nodes=tuple(node for node in graph.nodes if node.id in seen),
        edges=tuple(edge for edge in graph.edges if (edge.used, edge.made) in edges),
    )


class _Growing:
    """A graph while it grows; what a second record knows of a node is added to the first."""

    def __init__(self) -> None:
        self.nodes: dict[str, LineageNode] = {}
        self._how: dict[tuple[str, str], list[str]] = defaultdict(list)

    def node(self, kind: Kind, name: str, facts: Mapping[str, str] | None = None) -> str:
        """Its id; "" for a name that is none."""
        if not name:
            return ""
        key = f"{kind}:{name}"
        known = self.nodes.get(key)
        told = {**(known.facts if known else {}), **{fact: value for fact, value in (facts or {}).items() if value}}
        self.nodes[key] = LineageNode(id=key, kind=kind, name=name, facts=told)
        return key

    def edge(self, used: str, made: str, how: str) -> None:
        """Between two that are there; nothing where one is not."""
        if used in self.nodes and made in self.nodes and how not in self._how[used, made]:
            self._how[used, made].append(how)

    def version_of(self, label: str, checkpoint: str) -> str:
        """The version of this label, "" where it is registered with other weights; checkpoint: "" where the weights are not known."""
        version = f"version:{label}"
        weights = {used for used, made in self._how if made == version and used.startswith("weights:")}
        return version if version in self.nodes and (not checkpoint or not weights or f"weights:{checkpoint}" in weights) else ""

    def graph(self) -> LineageGraph:
        nodes = sorted(self.nodes.values(), key=lambda node: (KINDS.index(node.kind), node.name))
        edges = sorted((used, made, ", ".join(how)) for (used, made), how in self._how.items() if how)
        return LineageGraph(nodes=tuple(nodes), edges=tuple(LineageEdge(used=u, made=m, how=h) for u, m, h in edges))


def _add_dataset(made: _Growing, known: KnownDataset) -> None:
    dataset = made.node("data set", known.version, known.facts)
    _label(made, dataset, known.annotators)
    recordings = [made.node("recording", version) for version in known.recorded]
    for recording in recordings:
        made.edge(recording, dataset, "raw data")
    for source, count in known.sources.items():
        for into in recordings or [dataset]:
            made.edge(made.node("source", source), into, count)


def _label(made: _Growing, dataset: str, annotators: Mapping[str, str]) -> None:
    for what, version in annotators.items():
        made.edge(made.node("annotator", version, {"labels": what}), dataset, f"labels of {what}")


def _add_training(made: _Growing, known: KnownTraining) -> None:
    run, weights = made.node("run", known.run_id), made.node("weights", known.checkpoint_digest)
    made.edge(made.node("data set", known.dataset_version), run, "training data")
    made.edge(made.node("recipe", known.recipe_digest), run, "recipe")
    made.edge(run, weights, "result of the training")
    made.edge(made.node("weights", known.started_from), run, "start of the training")


def _add_version(made: _Growing, row: VersionRow) -> None:
    tags = row.tags
    version = made.node("version", f"{row.name}/{row.version}", {name: tags.get(name, "") for name in _SHOWN})
    dataset = made.node("data set", tags.get("dataset_version", ""), {"name": tags.get("dataset_name", "")})
    run, weights = made.node("run", tags.get("run_id", "")), made.node("weights", tags.get("checkpoint_digest", ""))
    _label(made, dataset, {name.removeprefix(_ANNOTATOR): value for name, value in tags.items() if name.startswith(_ANNOTATOR)})
    made.edge(dataset, run, "training data")
    made.edge(made.node("recipe", tags.get("recipe_digest", "")), run, "recipe")
    made.edge(run, weights, "result of the training")
    made.edge(weights or run or dataset, version, "registered")
    if tags.get("code_commit", "unknown") != "unknown":
        made.edge(made.node("code", tags["code_commit"]), version, "code at its registration")


def _add_bundle(made: _Growing, known: KnownBundle) -> None:
    bundle = made.node("bundle", known.digest, {"of": known.model_version, "contract_id": known.contract_id})
    made.edge(f"weights:{known.checkpoint}", bundle, "weights in it")
    made.edge(made.version_of(known.model_version, known.checkpoint), bundle, "packed")


def _add_release(made: _Growing, known: KnownRelease) -> None:
    facts = {"of": known.model_version, "may reach robots because": known.allowed_by, "contract_id": known.contract_id}
    release = made.node("release", known.digest, facts)
    made.edge(f"weights:{known.checkpoint}", release, "weights in it")
    if f"version:{known.model_version}" not in made.nodes:
        made.node("version", known.model_version, {"known": "by its name alone: no registry here has it"})
    made.edge(made.version_of(known.model_version, known.checkpoint), release, "released")


def _add_cell(made: _Growing, known: KnownCell) -> None:
    cell = made.node("cell", known.cell, {"site": known.site, **({"runs": known.release} if known.is_now else {})})
    made.edge(made.node("release", known.release), cell, f"{'runs' if known.is_now else 'ran'} it {known.when}".strip())


def _add_episode(made: _Growing, known: KnownEpisode) -> None:
    bundle = made.nodes.get(f"bundle:{known.bundle}")
    facts = {"cell": known.cell, "answered by": known.model_version, "contract_id": known.contract_id}
    if bundle is None:
        facts["linked"] = "by its label alone: the bundle that answered is not on record here"
        answered = made.version_of(known.model_version, "")
    elif bundle.facts.get("contract_id") != known.contract_id:
        facts["not linked"] = f"the bundle that it names promises contract {bundle.facts.get('contract_id')}"
        answered = ""
    else:
        answered = bundle.id
    made.edge(answered, made.node("episode", known.episode, {**facts, "bundle": known.bundle}), "decisions")
