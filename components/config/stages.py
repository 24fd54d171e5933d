"""The ten stages of a run, each described once: what it does, what its result depends on, and whether it makes data.

The flow, its progress display, the cache keys, DVC's pipeline and the run's summary all read this table. A stage's cache key holds its
recipe sections (`recipe_sections`), its inputs, the meaning of every module that `modules` reach or its recipe sections name, the
installed versions of `packages` and the data in `files`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from components.config.annotators import ANNOTATOR_MODULES
from components.config.judging.suites import SuiteEntry, suite_entry
from components.config.simulators import SIMULATORS, SimulatorEntry
from components.config.source_config import SOURCE_KINDS

if TYPE_CHECKING:
    from components.config.recipe import Recipe

_ARRAYS = ("numpy", "pandas", "pyarrow", "av", "pillow")  # what LeRobot data sets are read and written with
# simulators are opened by name; the code of a class that only a recipe names enters the key too (`code_version.named_modules`)
_SIMULATOR = tuple(package for entry in SIMULATORS.values() if not entry.extra for package in entry.packages)
_SIMULATOR_MODULES = tuple(entry.module for entry in SIMULATORS.values() if not entry.extra)
# sources are opened by name too
_SOURCE_MODULES = tuple(sorted({opener.partition(":")[0] for opener in SOURCE_KINDS.values()}))
# what embodiment files, mappings of logs, logs and recordings are read with
_SOURCES = ("msgpack", "ruamel.yaml", "PyYAML", "mcap", "mcap-protobuf-support", "mcap-ros2-support")
# what of the demonstrations decides a scene; the rest of "collect" only concerns their recording
SIMULATION_FIELDS = ("simulator", "tasks", "sim_steps_per_action", "image_size", "camera", "max_depth_m", "instructions", "scene_cameras")
_SIMULATION = tuple(f"collect.{name}" for name in SIMULATION_FIELDS)
# the thresholds of the rules that recording and taking in apply (`components.data.inspection.rules`)
_CLOCK = ("validate.max_period_error", "validate.max_rate_error", "validate.max_timestamp_jitter_s")
_INSPECTION = ("validate.black_mean", *_CLOCK, "validate.range_slack")
_ACCOUNT = "components.data.accounting.stages"  # what fell away, where a stage leaves it to its folder
_NETWORK = ("numpy", "torch", "safetensors", "pillow", "tiktoken", "tokenizers")
_DECODER = ("model_core/engine/kernels/decoder.c",)
_BY_ROLLOUTS = ("components.evaluation.evaluate", "components.evaluation.suites.simulated_tasks", *_SIMULATOR_MODULES)
_ROLLOUTS = (*_NETWORK, "pyarrow", "scipy", *_SIMULATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One kind of step.

    name: in commands, folders and records. title: for people. work: what it makes, in one sentence. config: the sections of the recipe that
    decide its result, whole ("train") or one field ("collect.tasks"). input_config: the sections that choose its inputs; they enter the
    key as the digests of these. modules: what it runs, those that it starts by name too. packages: distributions whose version can change
    its result. files: data files of this repository that it reads. is_data: DVC keeps its result. is_registered: it changes or needs the
    registry or a service, so it only runs as part of the whole loop.
    """

    name: str
    title: str
    work: str
    config: tuple[str, ...]
    modules: tuple[str, ...]
    input_config: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    is_data: bool = False
    is_registered: bool = False


STAGES: tuple[Stage, ...] = (
    Stage(
        name="collect",
        title="collect demonstrations",
        work="Scripted experts record demonstrations in the simulator.",
        config=("collect", *_INSPECTION),
        input_config=("include", "data"),
        modules=("components.data.collect", _ACCOUNT, *_SIMULATOR_MODULES),
        packages=(*_ARRAYS, *_SIMULATOR, "msgpack"),
        is_data=True,
    ),
    Stage(
        name="validate",
        title="validate episodes",
        work="Every episode is judged; bad ones are quarantined with the reason.",
        config=("validate",),
        modules=("components.data.validate", _ACCOUNT, *_SOURCE_MODULES),
        packages=(*_ARRAYS, *_SOURCES, "great_expectations"),
        is_data=True,
    ),
    Stage(
        name="annotate",
        title="annotate depth and trace",
        work="Every frame of a good episode gets depth tokens and a trace.",
        config=("annotate",),
        modules=("components.data.annotate", *ANNOTATOR_MODULES, *_SOURCE_MODULES),
        packages=(*_ARRAYS, *_SOURCES, "torch", "safetensors", "transformers", "tokenizers", "tiktoken", "mujoco"),
        is_data=True,
    ),
    Stage(
        name="freeze",
        title="freeze the data set",
        work="Labelled episodes become a data set version with a contract.",
        config=("freeze",),
        modules=("components.data.freeze", *_SOURCE_MODULES),
        packages=(*_ARRAYS, *_SOURCES, "torch", "safetensors"),
        is_data=True,
    ),
    Stage(
        name="train",
        title="train the policy",
        work="A policy is trained on the data set version; the best checkpoint is kept.",
        config=("train",),
        modules=("components.training.worker", "components.training.tiny_model"),
        packages=(*_NETWORK, "pyarrow", "deepspeed", "peft"),
        files=("infra/deepspeed",),
    ),
    Stage(
        name="evaluate",
        title="evaluate in closed loop",
        work="The policy acts in closed loop on fresh seeds, after the image-swap test.",
        config=("evaluate", *_SIMULATION),
        modules=_BY_ROLLOUTS,
        packages=_ROLLOUTS,
        files=_DECODER,
    ),
    Stage(
        name="gate",
        title="gate and register",
        work="The candidate is compared with the champion, and registered either way.",
        config=("gate", "package.model_name"),
        modules=("components.evaluation.gate", "components.evaluation.judging.plan", "components.release.registration"),
        packages=("numpy",),
        is_registered=True,
    ),
    Stage(
        name="package",
        title="package and serve",
        work="The promoted policy becomes a Bento whose golden probes pass.",
        config=("package",),
        modules=("components.release.package", "serving.gateway.service"),
        packages=(*_NETWORK, "pyarrow", "msgpack", "msgspec", "cryptography", "bentoml", "starlette", "uvicorn"),
        files=_DECODER,
        is_registered=True,
    ),
    Stage(
        name="workcells",
        title="run the workcells",
        work="Workcells act on the served policy and record what happened.",
        config=("workcells", *_SIMULATION),
        modules=("components.deployment.simulated_cells", "components.simulation.robot", *_SIMULATOR_MODULES, "serving.workcell.__main__"),
        packages=("httpx", "numpy", "pillow", "pyarrow", "msgpack", "msgspec", "mcap", "websockets", *_SIMULATOR),
        is_registered=True,
    ),
    Stage(
        name="report",
        title="write the report",
        work="What the run did, as a page for people and a document for programs.",
        config=("name",),
        modules=("components.report.page",),
        packages=("Jinja2", "MarkupSafe"),
        files=("components/report/templates",),
        is_registered=True,
    ),
)

INGEST = Stage(
    name="ingest",
    title="take recordings in",
    work="Recordings of workcells become a raw data set.",
    config=_INSPECTION,
    modules=("components.data.ingest", _ACCOUNT),
    packages=(*_ARRAYS, "msgpack"),
)
# takes the place of the demonstrations in later stages, so it is a step of "collect"
JOIN = Stage(
    name="collect",
    title="join recordings",
    work="Demonstrations and ingested recordings become one raw data set.",
    config=("collect.tasks", *_INSPECTION),
    input_config=("include",),
    modules=INGEST.modules,
    packages=INGEST.packages,
)

# sources of the recipe take the place of demonstrations, so it is a step of "collect"
SOURCES = Stage(
    name="collect",
    title="open the sources",
    work="The recipe's sources are opened, checked against their embodiments and listed in a raw index.",
    config=("data",),
    modules=("components.data.sources.raw_index", *_SOURCE_MODULES),
    packages=(*_ARRAYS, *_SOURCES),
)
# where no suite exists, the error on held-out episodes takes the place of rollouts
OPEN_LOOP = Stage(
    name="evaluate",
    title="evaluate on held-out episodes",
    work="The policy predicts the actions of held-out episodes, after the image-swap test.",
    config=("evaluate",),
    modules=("components.evaluation.suites.held_out",),
    packages=(*_NETWORK, "pyarrow", "scipy"),
)
# blocks of trials of champion and candidate on the same scenes, until the gate's comparison is decided
PAIRS = Stage(
    name="pairs",
    title="run paired trials",
    work="A policy acts in closed loop on the scenes of one block of pairs.",
    config=("evaluate", *_SIMULATION),
    modules=_BY_ROLLOUTS,
    packages=_ROLLOUTS,
)

STAGE_NAMES = tuple(stage.name for stage in STAGES)
DATA_STAGES = tuple(stage.name for stage in STAGES if stage.is_data)
LOCAL_STAGES = tuple(stage.name for stage in STAGES if not stage.is_registered)
_BY_NAME = {stage.name: stage for stage in (*STAGES, INGEST)}


def stage_named(name: str) -> Stage:
    """The stage of this name; raises `KeyError` for a name that is none."""
    return _BY_NAME[name]


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a whole run of this recipe, as they are made for it. Cells of a recipe with sources are robots, which no run starts."""
    if not recipe.data:
        return STAGES
    made = {SOURCES.name: SOURCES} | ({} if recipe.evaluate.suite else {OPEN_LOOP.name: OPEN_LOOP})
    return tuple(made.get(stage.name, stage) for stage in STAGES if stage.name != "workcells")


def recipe_sections(recipe: Recipe, stage: Stage) -> dict[str, object]:
    """The part of a recipe that decides the result of `stage`, by the names in the table: what its cache key holds of the recipe.

    By how many processes a policy is trained is no part of it: a training that was begun by two is found, and gone on with, by four.
    """
    shared = replace(recipe, train=replace(recipe.train, world_size=1, zero_stage=0))
    return {path: attrgetter(path)(shared) for path in stage.config}


def named_suite(recipe: Recipe, stage: Stage) -> SuiteEntry | None:
    """The built-in suite that `stage` runs for this recipe: its module and packages enter the cache key. None where it runs none."""
    return suite_entry(recipe.evaluate.suite) if recipe.evaluate.suite and "evaluate" in stage.config else None


def extra_simulator(recipe: Recipe, stage: Stage) -> SimulatorEntry | None:
    """The simulator of an extra that `stage` opens for this recipe: its module and packages enter the cache key. None for any other."""
    entry = SIMULATORS.get(recipe.collect.simulator)
    simulates = "collect" in stage.config or "collect.simulator" in stage.config
    return entry if simulates and entry is not None and entry.extra else None
