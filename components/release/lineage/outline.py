"""A graph as nested lists, for a terminal and for readers that do not see pictures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.release.lineage.documents import KINDS, LineageGraph, LineageNode
from components.release.lineage.graph import made_with

_MOST_NAMED = 8  # cells; more are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineLine:
    """One line. depth: 1 for what stands directly beside the start. how: what the one is for the other. is_again: what follows from it
    stands at an earlier line."""

    depth: int
    id: str
    how: str
    is_again: bool


def outline(graph: LineageGraph, start: str, *, backwards: bool) -> tuple[OutlineLine, ...]:
    """What `start` was made of (backwards), or what was made with it, each branch to its end."""
    kinds = {node.id: KINDS.index(node.kind) for node in graph.nodes}
    beside: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        here, there = (edge.made, edge.used) if backwards else (edge.used, edge.made)
        beside.setdefault(here, []).append((there, edge.how))
    seen = {start}

    def below(here: str, depth: int) -> Iterator[OutlineLine]:
        for there, how in sorted(beside.get(here, ()), key=lambda one: (-kinds[one[0]] if backwards else kinds[one[0]], one[0])):
            is_again = there in seen
            seen.add(there)
            yield OutlineLine(depth=depth, id=there, how=how, is_again=is_again and there in beside)
            if not is_again:
                yield from below(there, depth + 1)

    return tuple(below(start, 1))


def described(node: LineageNode) -> str:
    """A node in a few words."""
    name = node.name if node.kind in ("version", "annotator", "source", "cell", "episode") else node.name[:16]
    also = {"cell": "site", "annotator": "labels", "data set": "name", "release": "of", "bundle": "of"}.get(node.kind, "")
    return f"{node.kind} {name}" + (f" ({node.facts[also]})" if also in node.facts else "")


def in_short(graph: LineageGraph, starts: Sequence[str]) -> str:
    """What was made with these, in one sentence: how many of each kind, and which cells run it."""
    made = [node for node in made_with(graph, starts).nodes if node.id not in starts]
    releases = {node.name for node in made_with(graph, starts).nodes if node.kind == "release"}
    counts = [(kind, sum(node.kind == kind for node in made)) for kind in ("data set", "run", "version", "release")]
    told = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts if count]
    cells = [node for node in made if node.kind == "cell"]
    running = [node.name for node in cells if node.facts.get("runs") in releases]
    earlier = [node.name for node in cells if node.name not in running]
    told += [f"runs on {_named(running)}"] if running else []
    told += [f"ran earlier, or until it fell silent, on {_named(earlier)}"] if earlier else []
    return f"Made with it: {'; '.join(told)}." if told else "Nothing on record was made with it."


def _named(cells: Sequence[str]) -> str:
    return ", ".join(cells) if len(cells) <= _MOST_NAMED else f"{len(cells)} cells"
