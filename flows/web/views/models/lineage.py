"""Lineage: what something was made of and what was made with it, down to the robots that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.release.lineage.documents import LineageGraph
from components.release.lineage.outline import OutlineLine, described, in_short, outline
from flows.pipeline.lineage.gather import Lineage, lineage_of
from flows.platform.wiring import Platform
from flows.web.http.endpoint import Call, Endpoint, not_found
from flows.web.views.fleet.link import FleetLink
from model_core.access import Role

_TO_BEGIN_WITH = ("version", "release", "annotator", "data set", "cell")  # what is offered before something is named
_MOST_STARTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageQuery:
    """of: a name, or the first digits of one; "" for a list of what there is."""

    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageThing:
    """One thing of the graph. words: its kind and name, for a person."""

    id: str
    kind: str
    name: str
    words: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageLink:
    """From what was used to what was made. how: what the one is for the other."""

    used: str
    made: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageStart:
    """One of the things that were asked for, with what it was made of and what was made with it as nested lists."""

    id: str
    made_of: tuple[OutlineLine, ...]
    made_with: tuple[OutlineLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineagePage:
    """What was asked for. told: what was made with it, in a sentence. more_starts: things of that name that are not listed one by one.
    notes: places that did not answer. Without a name: no starts, and the things that one may begin with."""

    starts: tuple[LineageStart, ...]
    more_starts: int
    things: tuple[LineageThing, ...]
    links: tuple[LineageLink, ...]
    told: str
    notes: tuple[str, ...]


def lineage_endpoints(platform: Platform, *, needs_token: bool) -> Sequence[Endpoint]:
    """The graph. Nothing is asked before the first call."""
    link = FleetLink(platform.settings, needs_token=needs_token)

    def shown(call: Call) -> LineagePage:
        of = call.query.of.strip()
        found = lineage_of(platform, of, lambda path: link.ask(call.person, path, object))
        if of and not found.starts:
            raise not_found(
                f"{of[:80]!r}", "choose one of the list, or give at least four digits of a name" + "".join(f"; {n}" for n in found.notes)
            )
        return _page(found, of)

    return (
        Endpoint(
            method="GET",
            path="/api/lineage",
            does="What something was made of, and what was made with it: data, annotators, weights, versions, releases, robots",
            role=Role.OBSERVE,
            answer=LineagePage,
            query=LineageQuery,
            handle=shown,
        ),
    )


def _page(found: Lineage, of: str) -> LineagePage:
    graph = found.graph
    starts = tuple(
        LineageStart(id=start, made_of=outline(graph, start, backwards=True), made_with=outline(graph, start, backwards=False))
        for start in found.starts[:_MOST_STARTS]
        if of
    )
    return LineagePage(
        starts=starts,
        more_starts=len(found.starts) - len(starts) if of else 0,
        things=_things(graph, whole=bool(of)),
        links=tuple(LineageLink(used=edge.used, made=edge.made, how=edge.how) for edge in graph.edges if of),
        told=in_short(graph, found.starts) if of else "",
        notes=found.notes,
    )


def _things(graph: LineageGraph, *, whole: bool) -> tuple[LineageThing, ...]:
    nodes = (
        graph.nodes if whole else sorted((n for n in graph.nodes if n.kind in _TO_BEGIN_WITH), key=lambda n: _TO_BEGIN_WITH.index(n.kind))
    )
    return tuple(LineageThing(id=node.id, kind=node.kind, name=node.name, words=described(node), facts=node.facts) for node in nodes)
