"""The data sections of a recipe: what is recorded, inspected, labelled and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.config.annotators import DEPTH_ANNOTATORS, POINT_ANNOTATORS, annotator_source
from components.config.checks import fraction, one_of, positive
from components.config.inspection_config import InspectionConfig
from components.config.launch.ray_config import ENGINES, LOCAL, RayConfig
from components.config.simulators import simulator_source
from model_core.spec.documents import LATER, NEUTRAL
from model_core.spec.errors import require
from model_core.spec.types import LEVELS

NO_LABELS = "none"


def levels_taught(depth: str, points: str) -> tuple[str, ...]:
    """The reasoning levels that labels teach, most reasoning first. depth, points: names or versions of annotators, "none" where none."""
    if points == NO_LABELS:
        return ("action",)
    return LEVELS if depth != NO_LABELS else ("trace+action", "action")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """Where a camera stands that looks at a fixed point: azimuth and elevation in degrees (MuJoCo's free camera), distances in metres."""

    name: str = "front"
    azimuth: float = 135.0
    elevation: float = -35.0
    distance: float = 1.0
    lookat: tuple[float, float, float] = (0.0, 0.74, 0.13)


TWO_BUTTONS_CAMERA = CameraConfig(azimuth=125.0, distance=1.2, lookat=(0.0, 0.68, 0.2))  # the gripper's whole way is in view


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """Recording of demonstrations by scripted experts.

    first_seed: episode i of every task uses first_seed + i. horizon_sim_steps: an attempt ends here at the latest.
    keep_failures: also record attempts that did not solve the task. noise_levels: standard deviation (of the action) of
    correlated noise; an episode draws one. burst_probability, burst_steps: chance per control step that a random push of that
    many steps begins. settle_steps: control steps that are recorded after the success. max_depth_m: distances are clipped there.
    instructions: task -> the sentence that replaces the simulator's. scene_cameras: names of cameras that the simulated scene itself holds,
    such as Meta-World's "gripper"; they see besides `camera`, in images of its size and without depth. workers: processes (does
    not change the data).
    """

    simulator: str = "metaworld"
    tasks: tuple[str, ...] = ("coffee-button-v3", "drawer-close-v3")
    episodes_per_task: int = 300
    first_seed: int = 10_000
    workers: int = field(default=2, metadata=NEUTRAL)
    sim_steps_per_action: int = 4
    horizon_sim_steps: int = 200
    noise_levels: tuple[float, ...] = (0.0, 0.3, 0.6)
    noise_correlation: float = 0.7
    burst_probability: float = 0.04
    burst_steps: tuple[int, int] = (2, 4)
    keep_failures: bool = False
    settle_steps: int = 8
    image_size: int = 80
    camera: CameraConfig = CameraConfig()
    max_depth_m: float = 3.0
    instructions: Mapping[str, str] = field(default_factory=dict)
    scene_cameras: tuple[str, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        simulator_source(self.simulator)  # an unknown name is refused here
        require(len(self.tasks) > 0, "collect.tasks is empty; name at least one task, such as 'drawer-close-v3'")
        require(len(set(self.tasks)) == len(self.tasks), "collect.tasks names a task twice", got=self.tasks)
        names = (self.camera.name, *self.scene_cameras)
        require(len(set(names)) == len(names), "collect.camera and collect.scene_cameras name a camera twice", got=names)
        positive(self, "episodes_per_task", "workers", "sim_steps_per_action", "horizon_sim_steps", "image_size", "max_depth_m")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateConfig:
    """What an episode must satisfy to be used, and how many may fail before the flow stops.

    `collect` and `ingest` inspect every episode with black_mean, range_slack and the three thresholds of the clock, too. Fractions are
    0..1 of an episode's frames (max_bad_fraction: of all episodes). frozen_frames_limit: equal images in a row of a commanded arm.
    A frame comes one control period after the one before, within max_timestamp_jitter_s and a share max_period_error of the period; the
    whole episode lasts as long as its steps take within a share max_rate_error. max_idle_fraction: of steps in which nothing moves.
    black_mean: an image with a lower mean (0..255) is black; images of Meta-World have means of 82 to 101, so 5 sets none of them aside.
    range_slack: share of a dimension's range by which a value may exceed its limits. inspection: thresholds of the further rules.
    """

    min_frames: int = 8
    max_frames: int = 1000
    max_bad_fraction: float = 0.2
    min_gripper_visible: float = 0.5
    frozen_frames_limit: int = 10
    black_mean: float = 5.0
    range_slack: float = 0.05
    max_clipped_fraction: float = 0.9
    max_timestamp_jitter_s: float = 0.001
    max_period_error: float = 0.2
    max_rate_error: float = 0.01
    max_idle_fraction: float = 0.5
    data_docs: bool = True
    inspection: InspectionConfig = field(default_factory=InspectionConfig)

    def __post_init__(self) -> None:
        fraction(self, "max_bad_fraction", "min_gripper_visible", "max_clipped_fraction", "range_slack", "max_idle_fraction")
        fraction(self, "max_period_error", "max_rate_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class VqvaeConfig:
    """Training of the depth VQ-VAE: 10x10 codes. input_size: 20, 40, 80, 160 or 320 pixels. lr: AdamW's.

    frames: at most about this many depth maps are trained on.
    """

    steps: int = 600
    batch: int = 16
    lr: float = 4e-3
    seed: int = 0
    hidden: int = 16
    code_dim: int = 16
    num_codes: int = 128
    input_size: int = 40
    commitment: float = 0.25
    ema_decay: float = 0.99
    frames: int = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateConfig:
    """How frames get their depth tokens and traces.

    Both "none": no labels; the policy is trained at the level "action", and its contract says so. Only depth_annotator "none": traces
    alone, the levels "trace+action" and "action".
    depth_annotator: "truth" (the simulator's metric depth), "depth_anything" or "package.module:function". point_annotator: "truth",
    "pointing", "kinematics", "traces" or "package.module:function".
    depth_model, point_model: folder or hub id of their weights, read only by the annotators that have any; point_model of "kinematics" is a
    folder with kinematics.yaml, of "traces" a LeRobot folder with traces in its language column.
    The default pointer is a MolmoAct because our own network reads its layout: Molmo-7B-D-0924 needs remote code, which is
    refused, and Molmo2 needs torchvision. Any MolmoAct folder or any pointing architecture that transformers has built in will do.
    codebook: folder of a finished depth codebook ("vqvae" of a checkpoint) to label with; empty: one is trained on these episodes.
    cameras: whose frames are labelled besides those of the first camera, which the policy's depth and trace are of.
    min_confidence: a gripper point with a lower confidence (0..1) counts as not seen. max_jump: so does one that is farther from the
    points of the frames beside it than this share of the image's diagonal (0: any distance). corrections: a file of JSON lines in which a
    person corrected points (`components.data.annotators.corrections`); they take precedence. smooth_frames: each point becomes the mean
    over this many frames (1: none). max_abstained: share of an episode's frames that may be without a sure point.
    batch_size: frames a forward pass, of any episodes; workers: processes that each open the annotator; engine: where they run, "local"
    (this machine) or "ray" (a cluster, `ray`; extra "ray"). calls_at_once: all jobs that name the same calls_folder have at most so many
    batches in work together, for a labelling model that is served to several (0: any number). None of these changes the labels.
    max_rejected_fraction: of the good episodes of any one source (who
    recorded them); if more cannot be labelled, the stage stops, so that no source is left out of a training without a word.
    """

    depth_annotator: str = "truth"
    point_annotator: str = "truth"
    depth_model: str = "depth-anything/Depth-Anything-V2-Base-hf"
    point_model: str = "allenai/MolmoAct-7B-D-0812"
    codebook: str = ""
    vqvae: VqvaeConfig = VqvaeConfig()
    trace_points: int = 5
    cameras: tuple[str, ...] = ()
    min_confidence: float = 0.0
    max_jump: float = 0.0
    smooth_frames: int = 1
    corrections: str = ""
    max_abstained: float = 1.0
    batch_size: int = field(default=64, metadata=NEUTRAL)
    workers: int = field(default=1, metadata=NEUTRAL)
    engine: str = field(default=LOCAL, metadata=NEUTRAL)
    ray: RayConfig = field(default=RayConfig(), metadata=NEUTRAL)
    calls_at_once: int = field(default=0, metadata=NEUTRAL)
    calls_folder: str = field(default="", metadata=NEUTRAL)
    max_rejected_fraction: float = 0.2

    def __post_init__(self) -> None:
        fraction(self, "max_rejected_fraction", "min_confidence", "max_jump", "max_abstained")
        positive(self, "batch_size", "workers")
        one_of("annotate.engine", self.engine, ENGINES)
        require(self.calls_at_once >= 0, "annotate.calls_at_once must not be below 0", got=self.calls_at_once)
        require(
            not self.calls_at_once or bool(self.calls_folder), "annotate.calls_at_once needs annotate.calls_folder, where calls are counted"
        )
        require(self.smooth_frames % 2 == 1, "annotate.smooth_frames must be odd: as many frames before as after", got=self.smooth_frames)
        if not self.has_depth:
            require(not self.codebook, "annotate.codebook labels depth, and depth_annotator is 'none'; leave it empty", got=self.codebook)
        if not self.is_labelled:
            require(
                not self.has_depth,
                f"annotate: depth tokens alone teach no level, got depth_annotator {self.depth_annotator!r} and point_annotator "
                f'{NO_LABELS!r}; name a point annotator, or set both to {NO_LABELS!r} for the level "action"',
            )
            return
        if self.has_depth:
            annotator_source("annotate.depth_annotator", self.depth_annotator, DEPTH_ANNOTATORS)
        annotator_source("annotate.point_annotator", self.point_annotator, POINT_ANNOTATORS)
        require(1 <= self.trace_points <= 5, "annotate.trace_points must be 1..5", got=self.trace_points)

    @property
    def is_labelled(self) -> bool:
        """Whether frames get labels at all: a trace, and depth tokens where `has_depth`."""
        return self.point_annotator != NO_LABELS

    @property
    def has_depth(self) -> bool:
        """Whether frames get depth tokens."""
        return self.depth_annotator != NO_LABELS

    @property
    def levels(self) -> tuple[str, ...]:
        """The reasoning levels that these labels teach."""
        return levels_taught(self.depth_annotator, self.point_annotator)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeConfig:
    """How labelled episodes become a data set version.

    mask: per action dimension, whether it is normalised by quantiles (False: passed through as it is). Empty: every dimension but the
    embodiment's gripper.
    statistics: folder of the checkpoint whose statistics are kept, so that its action bins mean what they meant; empty: computed here.
    frame_stride: every n-th frame becomes a training sample; its chunk still holds consecutive actions.
    """

    name: str = "loop"
    validation_fraction: float = 0.05
    chunk_length: int = 8
    execute_horizon: int = 4
    frame_stride: int = 1
    frames_per_shard: int = 4096
    mask: tuple[bool, ...] = ()
    statistics: str = ""
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive(self, "chunk_length", "execute_horizon", "frame_stride", "frames_per_shard")
        require(
            0 < self.validation_fraction < 0.5, "freeze.validation_fraction must be above 0 and below 0.5", got=self.validation_fraction
        )
        require(
            self.execute_horizon <= self.chunk_length,
            f"freeze.execute_horizon {self.execute_horizon} is longer than the chunk; use at most {self.chunk_length}",
        )
