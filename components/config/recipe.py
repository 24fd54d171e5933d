"""Everything that a person chooses for a run, as frozen values. Recipes themselves live in ``flows/pipeline/recipes.py``.

Each config goes into the key of its stage; a field that only says how the work is done (how many processes share
it) is marked `NEUTRAL` and stays out of the key. Cross-field rules state the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.config.checks import fraction, positive
from components.config.data_config import NO_LABELS, AnnotateConfig, CollectConfig, FreezeConfig, ValidateConfig
from components.config.judging.gate_config import GateConfig
from components.config.judging.suites import suite_entry
from components.config.source_config import SIMULATOR, SourceConfig
from components.config.train_config import CHECKPOINT_FILES, TrainConfig, rounded_up, start_folder
from model_core.spec.contract import digest_of
from model_core.spec.documents import LATER, NEUTRAL, from_document, to_document
from model_core.spec.errors import SpecError, require
from model_core.spec.execution.cell_options import FIRST_SEED


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """Closed loop on seeds that were never trained on.

    suite: the name of a built-in benchmark suite (`components.config.judging.suites`), or "package.module:function" of one (empty: the
    tasks of the recipe's own simulator). Of a built-in one, tasks (none: all) on seeds_per_task initial states from number first_state are
    run; horizon, seeds and cameras are the suite's own, and nothing of `collect` counts.
    reasoning: "full" (depth, trace, action), "reuse-depth" (the same, keeping the last depth tokens while the model agrees), "trace+action"
    or "action". batch: episodes that are decided for together. steering: with every observation a trace is given as a person would draw it
    on the scene's first image (the way of the simulator's expert): the "whole" line, or what of it lies "ahead" of the gripper.
    image_swap_frames, min_image_swap_change: the image-swap check: of so many frames, at least this share of decisions must change when
    the image is exchanged (a model that uses it: 0.88 and more; after 20 steps of training: 0.16). films_per_task: how many rollout strips.
    """

    seeds_per_task: int = 20
    first_seed: int = 930_000
    horizon_sim_steps: int = 500
    execute_horizon: int = 4
    reasoning: Literal["full", "reuse-depth", "trace+action", "action"] = "full"
    batch: int = 10
    workers: int = field(default=2, metadata=NEUTRAL)
    image_swap_frames: int = 64
    min_image_swap_change: float = 0.5
    max_refusals_in_a_row: int = 3
    films_per_task: int = 1
    suite: str = ""
    tasks: tuple[str, ...] = ()
    first_state: int = 0
    steering: Literal["none", "whole", "ahead"] = field(default="none", metadata=LATER)

    def __post_init__(self) -> None:
        is_built_in = bool(self.suite) and suite_entry(self.suite) is not None
        require(
            is_built_in or not (self.tasks or self.first_state),
            "evaluate.tasks and evaluate.first_state choose cases of a built-in suite. Fix: set evaluate.suite to one "
            "(`actwright suite list`); the tasks of a recipe's own simulator are those of collect.tasks",
        )
        positive(self, "seeds_per_task", "horizon_sim_steps", "execute_horizon", "batch", "workers")
        fraction(self, "min_image_swap_change")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageConfig:
    """What goes into the Bento and how it must answer before it counts as ready.

    golden_probes: recorded observations whose decisions the packed model must reproduce. embodiment: whose policy a checkpoint of several
    embodiments is released as; "" where it has one.
    """

    name: str = "actwright-policy"
    model_name: str = "actwright"
    golden_probes: int = 4
    reasoning: Literal["full", "trace+action", "action"] = "full"
    embodiment: str = field(default="", metadata=NEUTRAL)  # where it is named, it enters the keys of gate and package by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkcellsConfig:
    """Simulated cells that call the served policy. tasks: one a cell, in order (empty: the tasks of collect).

    deadline_ms: a chunk that comes later is not used; the cell holds. real_time: wait for the control rate
    (False: as fast as the simulator goes). audit: keep a hash-chained record of every decision.
    """

    cells: int = 2
    tasks: tuple[str, ...] = ()
    episodes_per_cell: int = 5
    first_seed: int = FIRST_SEED
    horizon_sim_steps: int = 500
    execute_horizon: int = 4
    deadline_ms: float = 2_000.0
    real_time: bool = False
    record: bool = True
    audit: bool = True

    def __post_init__(self) -> None:
        positive(self, "cells", "episodes_per_cell", "horizon_sim_steps", "execute_horizon", "deadline_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything chosen by a person for one run of the loop.

    include: digests of ingested recordings (`actwright ingest`) that join the demonstrations; nothing joins unasked.
    data: the sources that are trained on; empty: the demonstrations of collect's simulator. With sources only those of
    kind "simulator" are.
    """

    name: str
    collect: CollectConfig = CollectConfig()
    validate: ValidateConfig = ValidateConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    freeze: FreezeConfig = FreezeConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvalConfig = EvalConfig()
    gate: GateConfig = GateConfig()
    package: PackageConfig = PackageConfig()
    workcells: WorkcellsConfig = WorkcellsConfig()
    include: tuple[str, ...] = ()
    data: tuple[SourceConfig, ...] = ()
    description: str = field(default="", metadata=NEUTRAL)

    def __post_init__(self) -> None:
        # cells of a recipe with sources are robots, which no run starts
        for name, config in (("evaluate", self.evaluate), *(() if self.data else (("workcells", self.workcells),))):
            require(
                config.execute_horizon <= self.freeze.chunk_length,
                f"{name}.execute_horizon {config.execute_horizon} is longer than the chunk; use at most {self.freeze.chunk_length}",
            )
        self._check_data()
        step = self.train.picture_step
        for where, recording in self._recordings():
            side = recording.image_size
            require(
                side % step == 0,
                f"{where}.image_size {side} does not fit train.network, whose images have sides that are multiples of {step}; use "
                + " or ".join(str(fit) for fit in (side // step * step, rounded_up(side, step)) if fit),
            )
        require(
            self.train.committed_rows < self.freeze.chunk_length,
            f"train.committed_rows {self.train.committed_rows} must be below freeze.chunk_length {self.freeze.chunk_length}: "
            f"a policy predicts at least one row itself; use at most {self.freeze.chunk_length - 1}",
        )
        self._check_seeds()
        strangers = sorted(set(self.workcells.tasks) - set(self.collect.tasks))
        require(not strangers, f"workcells.tasks {strangers} are not among collect.tasks; the policy has never seen them")

    def _check_data(self) -> None:
        """Sources have names of their own, and every level that is evaluated or served is one that their labels can teach."""
        names = [source.name for source in self.data]
        require(len(set(names)) == len(names), "data: two sources have one name; give each its own", got=names)
        require(not (self.data and self.include), "data and include: ingested recordings join demonstrations only; leave one of them empty")
        taught = self.annotate.levels
        require(
            self.evaluate.steering == "none" or self.annotate.is_labelled or bool(self.data),
            "evaluate.steering gives traces, and a policy that is trained without labels takes none. Fix: set evaluate.steering=none, or "
            "name annotate.point_annotator",
            got=self.evaluate.steering,
        )
        for where, level in (("evaluate", self.evaluate.reasoning), ("package", self.package.reasoning)):
            lack = "depth labels" if self.annotate.is_labelled else "labels"
            require(
                level in taught,
                f"{where}.reasoning {level!r}: without {lack} (annotate.depth_annotator {NO_LABELS!r}) a policy is trained at "
                f'{" and ".join(repr(one) for one in taught)}; set {where}.reasoning to "{taught[0]}"',
            )

    def _recordings(self) -> list[tuple[str, CollectConfig]]:
        """What the run records, with its place in the recipe: its section collect, or the simulators among its sources."""
        if not self.data:
            return [("collect", self.collect)]
        return [(f"data.{source.name}.options", source.recording) for source in self.data if source.kind == SIMULATOR]

    def _check_seeds(self) -> None:
        """Evaluation and workcells use no seed that was demonstrated."""
        for demonstrated in (self.collect, *(recording for _, recording in self._recordings())):
            shown = range(demonstrated.first_seed, demonstrated.first_seed + demonstrated.episodes_per_task)
            for name, first, count in (
                ("evaluate", self.evaluate.first_seed, self.evaluate.seeds_per_task),
                ("workcells", self.workcells.first_seed, self.workcells.cells * self.workcells.episodes_per_cell),
            ):
                overlap = first < shown.stop and shown.start < first + count
                require(
                    not overlap,
                    f"{name}.first_seed {first} is among the demonstrations' seeds {shown.start}..{shown.stop - 1}; use {shown.stop}",
                )

    def check_start(self) -> None:
        """Raise `SpecError` unless the checkpoint that training starts from is here; asked before any work, not when a recipe is read."""
        if not self.train.init_from:
            return
        folder = start_folder(self.train.init_from)
        missing = [name for name in CHECKPOINT_FILES if not (folder / name).is_file()]
        if missing:
            got = f"a folder without {', '.join(missing)}" if folder.is_dir() else "no folder there"
            raise SpecError(
                f"train.init_from {folder}: expected the folder of a checkpoint ({', '.join(CHECKPOINT_FILES)}), got {got}; name one, such "
                'as the "checkpoint" that `actwright train` prints at its end'
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe as a plain document; `from_json` is its exact inverse."""
        return to_document(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Recipe:
        """Read a resolved recipe; raises `SpecError` naming the field and what was probably meant."""
        return from_document(Recipe, document, where="recipe")
