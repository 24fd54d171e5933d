"""One episode as one MCAP file of ROS 2 messages: a message of every topic at the time of every step.

A data set keeps no date, so a log begins at second 1 of its clock. Log times are those of the steps, one control period apart; a message's
own stamp is the measured time. Numbers are float64, which holds a float32 exactly.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.export.mcap.log_spec import ACTION, INSTRUCTION, INTERVENTION, OUTCOME, STATE, TOOL_CENTRE, LogSpec, camera_topic
from components.data.export.mcap.messages import DEFINITIONS, FLAG, IMAGE, POINT, TEXT, VALUES
from components.data.sources.mcap.resampling import NS, grid_ns
from model_core.spec.documents import to_document
from model_core.spec.embodiment import VectorSpec
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

START_NS = NS  # 0 would say that there is no stamp
METADATA = "actwright"
# format of the messages -> (Pillow's name, its options); JPEG keeps the colour of every pixel
IMAGE_FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}


def write_log(path: Path, episode: Episode, spec: LogSpec, image_format: str) -> None:
    """Write a new file. Raises `DatasetError` for an episode that is not of the spec's body or holds numbers that are none."""
    from mcap_ros2.writer import Writer

    _check(episode, spec)
    period_ns = NS / float(spec.body.control_hz)
    times_ns = grid_ns(START_NS, START_NS + round(period_ns * (len(episode) - 1)), float(spec.body.control_hz))
    with path.open("xb") as file:
        log = Writer(file)
        log.add_metadata(METADATA, _metadata(episode))
        out = _Topics(log, episode, times_ns.tolist())
        out.write(0, INSTRUCTION, TEXT, SimpleNamespace(data=episode.instruction))
        for step in range(len(episode)):
            _write_step(out, step, episode, spec, image_format)
        if episode.success is not None:
            out.write(len(episode) - 1, OUTCOME, FLAG, SimpleNamespace(data=episode.success))
        log.finish()


class _Topics:
    """The messages of one log, each with the log time of its step."""

    def __init__(self, log: Any, episode: Episode, times_ns: list[int]) -> None:
        self._log, self._times_ns = log, times_ns
        self._stamps_ns = [START_NS + round(t * NS) for t in (episode.timestamps_T - episode.timestamps_T[0]).tolist()]
        self._schemas: dict[str, Any] = {}

    def write(self, step: int, topic: str, schema: str, message: Any) -> None:
        if schema not in self._schemas:
            self._schemas[schema] = self._log.register_msgdef(schema, DEFINITIONS[schema])
        at = self._times_ns[step]
        self._log.write_message(topic=topic, schema=self._schemas[schema], message=message, log_time=at, publish_time=at, sequence=step)

    def stamped(self, step: int, frame_id: str = "", **fields: Any) -> SimpleNamespace:
        """A message whose header has the measured time of a step."""
        seconds, nanos = divmod(self._stamps_ns[step], NS)
        return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanos), frame_id=frame_id), **fields)


def _write_step(out: _Topics, step: int, episode: Episode, spec: LogSpec, image_format: str) -> None:
    for camera in spec.body.cameras:
        image_HW3 = episode.images[camera.name][step]
        data = _encoded(image_HW3[..., ::-1] if camera.color == "bgr" else image_HW3, image_format)
        out.write(step, camera_topic(camera.name), IMAGE, out.stamped(step, camera.name, format=image_format, data=data))
    for topic, vector, values_TD in (
        (STATE, spec.body.proprio, episode.proprio_TP),
        (ACTION, spec.body.action, episode.actions_TA),
    ):
        names = [dim.name for dim in vector.dims]
        out.write(step, topic, VALUES, out.stamped(step, name=names, position=values_TD[step].tolist(), velocity=[], effort=[]))
    if spec.has_intervention and episode.intervention_T is not None:
        out.write(step, INTERVENTION, FLAG, SimpleNamespace(data=bool(episode.intervention_T[step])))
    if spec.has_tool_centre and episode.tcp_T3 is not None:
        x, y, z = episode.tcp_T3[step].tolist()
        out.write(step, TOOL_CENTRE, POINT, out.stamped(step, "world", point=SimpleNamespace(x=x, y=y, z=z)))


def _encoded(image_HW3: NDArray[np.uint8], image_format: str) -> bytes:
    from PIL import Image

    name, options = IMAGE_FORMATS[image_format]
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HW3)).save(sink, name, **options)
    return sink.getvalue()


def _metadata(episode: Episode) -> dict[str, str]:
    """What stands in no topic, as text: a metadata record holds nothing else."""
    told = {"episode_id": episode.episode_id, "embodiment": episode.embodiment, "task": episode.task, "instruction": episode.instruction}
    return told | {"provenance": json.dumps(to_document(episode.provenance), sort_keys=True)}


def _check(episode: Episode, spec: LogSpec) -> None:
    where, body = f"episode {episode.episode_id}", spec.body
    sizes = {name: frames.shape[1:3] for name, frames in episode.images.items()}
    wanted = {camera.name: (camera.height, camera.width) for camera in body.cameras}
    if sizes != wanted:
        raise DatasetError(f"{where} has images of {sizes}, its embodiment states {wanted}. Fix: leave it out with `actwright data select`")
    vectors: tuple[tuple[str, VectorSpec, NDArray[np.float32]], ...] = (
        ("state", body.proprio, episode.proprio_TP),
        ("action", body.action, episode.actions_TA),
    )
    for part, vector, values_TD in vectors:
        if values_TD.shape[1] != len(vector):
            raise DatasetError(f"{where} has {values_TD.shape[1]} numbers of {part}, its embodiment {len(vector)}. Fix: correct the file")
        if not np.isfinite(values_TD).all():
            step, place = np.argwhere(~np.isfinite(values_TD))[0].tolist()
            raise DatasetError(
                f"{where}, step {step}: {part} {vector.dims[place].name!r} is {values_TD[step, place]}, expected a number. "
                "Fix: leave the episode out with `actwright data select`, or trim it before that step"
            )
