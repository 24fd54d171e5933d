"""What was seen and done, as episodes in the spool: one file each, whole or not at all, ready to be ingested."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.files import atomic_write
from model_core.spec.protocol.episode_file import BEING_RECORDED
from model_core.spec.protocol.wire import encode_episode
from model_core.spec.types import Observation
from serving.workcell.robot.interface import RecordedSenses, Robot

logger = logging.getLogger(__name__)

SUFFIX = ".episode"


class Recorder:
    """Collects one episode at a time and writes it to `spool`.

    The label of a step (`actions_TA`) is what was executed: whether it is worth learning from is for others to decide.
    """

    def __init__(self, spool: Path, robot: Robot, cell: str) -> None:
        self._spool, self._robot, self._cell = spool, robot, cell
        self._senses = robot if isinstance(robot, RecordedSenses) else None
        self._images: dict[str, list[NDArray[np.uint8]]] = {}
        self._depth_m: dict[str, list[NDArray[np.float32]]] = {}
        self._proprio: list[NDArray[np.float32]] = []
        self._tcp: list[NDArray[np.float32]] = []
        self._actions: list[NDArray[np.float32]] = []
        self._times_s: list[float] = []
        self._interventions: list[bool] = []

    def begin(self) -> None:
        """Forget an unfinished episode."""
        for kept in (self._images, self._depth_m, self._proprio, self._tcp, self._actions, self._times_s, self._interventions):
            kept.clear()

    def add(self, observation: Observation, action_A: NDArray[np.float32], at_s: float) -> None:
        """One control step: what was seen at `at_s` and what is about to be executed."""
        self.see(observation, at_s)
        self.did(action_A)

    def did(self, action_A: NDArray[np.float32], *, is_intervention: bool = False) -> None:
        """What is executed on what `see` saw. is_intervention: a person acts in the place of the policy."""
        self._actions.append(np.array(action_A, np.float32))
        self._interventions.append(is_intervention)

    def see(self, observation: Observation, at_s: float) -> None:
        """What was seen at `at_s` on the cell's clock, with all senses. Takes its time: before a command is judged, not after that.

        Everything is copied: a driver may fill the same array at every step.
        """
        self._times_s.append(at_s)
        for name, image in observation.images.items():
            self._images.setdefault(name, []).append(image.copy())
        self._proprio.append(observation.proprio_P.copy())
        if self._senses is not None:
            for name, depth_m in self._senses.depth_m().items():
                self._depth_m.setdefault(name, []).append(depth_m.copy())
            self._tcp.append(self._senses.tcp_3().copy())

    def finish(self, *, episode_id: str, seed: int, success: bool, model_version: str) -> Path | None:
        """Write the episode; None when nothing was done. A full disk loses the recording, never the episode."""
        if not self._actions:
            return None
        episode = self._episode(episode_id, seed, success, model_version)
        self.begin()
        try:
            return write_episode(self._spool, episode)
        except OSError as error:
            logger.error("episode.lost episode=%s spool=%s error=%s", episode_id, self._spool, error)  # noqa: TRY400 (the sentence is enough)
            return None

    def _episode(self, episode_id: str, seed: int, success: bool, model_version: str) -> Episode:
        robot, senses = self._robot, self._senses
        executed_TA = np.stack(self._actions)
        steps = len(executed_TA)  # what was seen and never acted on, because the robot stopped, is no step
        geometry: Mapping[str, CameraGeometry] = {} if senses is None else senses.geometry()
        return Episode(
            episode_id=episode_id,
            embodiment=robot.embodiment.name,
            task=robot.task,
            instruction=robot.instruction,
            success=success,
            provenance=Provenance(
                producer=f"policy:{model_version}",
                cell=self._cell,
                seed=seed,
                versions={} if senses is None else senses.versions,
                render={} if senses is None else senses.render_flags,
            ),
            images={name: np.stack(frames[:steps]) for name, frames in self._images.items()},
            depth_m={name: np.stack(frames[:steps]) for name, frames in self._depth_m.items()},
            geometry=dict(geometry),
            proprio_TP=np.stack(self._proprio[:steps]),
            actions_TA=executed_TA,
            executed_TA=executed_TA,
            timestamps_T=np.array(self._times_s[:steps]) - self._times_s[0],
            tcp_T3=np.stack(self._tcp[:steps]) if self._tcp else None,
            body=robot.embodiment,
            intervention_T=np.array(self._interventions, bool),
        )


@contextlib.contextmanager
def recording_into(spool: Path, cell: str) -> Iterator[None]:
    """While a cell records into `spool`, a locked file stands there, so that no training begins on a folder that still grows.

    The lock ends with the process, however it ends. A folder that cannot be written or locked is no reason to stop a cell.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", cell)
    mark = spool / f".{name}{BEING_RECORDED}"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            spool.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(mark.open("wb"))
            stack.callback(mark.unlink, missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def write_episode(spool: Path, episode: Episode) -> Path:
    """Write one episode under its id, atomically; writing the same episode again gives the same file."""
    path = spool / f"{episode.episode_id}{SUFFIX}"
    atomic_write(path, encode_episode(episode))
    return path
