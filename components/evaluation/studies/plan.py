"""Which trial comes when: randomized complete blocks, drawn from the design alone. No person chooses, and anybody can draw them again.

Every draw is a SHA-256 of the design's seed and of what is drawn, and not a generator's stream: it is the same in every version of every
library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from components.evaluation.studies.design import Scene, StudyDesign

Side = Literal["candidate", "champion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """One trial to come. place: among all trials, from 0. turn: 1 or 2, on its scene. blind: what a person who labels is told of the
    policy; no name comes twice, so nothing is known of a policy from the trials before."""

    place: int
    block: int
    side: Side
    task: str
    seed: int
    turn: int
    blind: str


def planned_blocks(design: StudyDesign, further: Sequence[Sequence[Scene]] = ()) -> list[tuple[PlannedTrial, ...]]:
    """Every trial of the design in the order of work, by block; then those of the scenes that each amendment added.

    A block holds `pairs_per_block` scenes of each task (the last one what is left), shuffled over tasks, each with both sides in a drawn
    order.
    """
    size = int(design.gate["pairs_per_block"])
    blocks: list[tuple[PlannedTrial, ...]] = []
    place = 0
    for scenes in (part for added in (design.scenes, *further) for part in _parted(added, size)):
        number = len(blocks)
        ordered = sorted(scenes, key=lambda scene: _draw(design.seed, "scene", number, scene.task, scene.seed))
        found = [trial for at, scene in enumerate(ordered) for trial in _pair(design.seed, (number, place + 2 * at), scene)]
        blocks.append(tuple(found))
        place += len(found)
    return blocks


def sides_of_block(design: StudyDesign, block: int) -> tuple[Side, Side]:
    """In which order both sides run a block of which each side's trials are run together, as the gate's further pairs are.

    Drawn from the design, which was locked before: nothing that changes with time (a machine that warms up) then favours one side.
    """
    return ("champion", "candidate") if int(_draw(design.digest, "first", block)[0], 16) % 2 else ("candidate", "champion")


def _parted(scenes: Sequence[Scene], size: int) -> Iterator[list[Scene]]:
    """The scenes of each task in parts of `size`, the parts of all tasks together."""
    by_task: dict[str, list[Scene]] = {}
    for scene in scenes:
        by_task.setdefault(scene.task, []).append(scene)
    for start in range(0, max((len(found) for found in by_task.values()), default=0), size):
        yield [scene for found in by_task.values() for scene in found[start : start + size]]


def _pair(seed: int, at: tuple[int, int], scene: Scene) -> Iterator[PlannedTrial]:
    """Both trials of a scene. at: the block, and the place of the first of them."""
    block, place = at
    sides: list[Side] = ["candidate", "champion"]
    if int(_draw(seed, "first", block, scene.task, scene.seed)[0], 16) % 2:
        sides.reverse()
    for turn, side in enumerate(sides):
        blind = f"policy {_draw(seed, 'name', block, scene.task, scene.seed, side)[:6]}"
        yield PlannedTrial(place=place + turn, block=block, side=side, turn=turn + 1, blind=blind, task=scene.task, seed=scene.seed)


def _draw(*what: object) -> str:
    return hashlib.sha256("\n".join(map(str, what)).encode()).hexdigest()
