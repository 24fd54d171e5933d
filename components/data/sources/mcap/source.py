"""A folder of MCAP files, or one of them, as an `EpisodeSource`: indexed in one pass, images decoded when an episode is asked for.

Memory holds the numbers and times of the mapped topics and the images of one episode, whatever the size of the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.files import sha256_file
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.sources.mcap.account import Disorder, account_of, notes_of
from components.data.sources.mcap.episodes import EpisodePlan, plan_episode, spans
from components.data.sources.mcap.images import decode_image
from components.data.sources.mcap.log_file import LogFile, LoggedMessage, split_recordings
from components.data.sources.mcap.mapping import TopicMapping, check_mapping
from components.data.sources.mcap.resampling import NS
from components.data.sources.mcap.series import read_series
from model_core.spec.contract import digest_of, document_of
from model_core.spec.embodiment import CameraSpec, EmbodimentSpec
from model_core.spec.episode import Episode, Provenance
from model_core.spec.errors import DatasetError

SUFFIX = ".mcap"


class McapSource:
    """Episodes of robot logs. refused: what the mapping refuses, by episode id, with the reason; those have no row.

    chosen: which of the rows are used. settings: JSON values that decide that, for the digest. Not thread-safe. Raises `SpecError` where
    mapping and embodiment do not fit, `DatasetError` for a path without logs.
    """

    def __init__(
        self,
        path: Path,
        mapping: TopicMapping,
        body: EmbodimentSpec,
        *,
        name: str = "",
        chosen: Callable[[Sequence[EpisodeIndexRow]], list[EpisodeIndexRow]] = list,
        settings: object = None,
    ) -> None:
        check_mapping(mapping, body)
        self._chosen, self._settings, self._left_out = chosen, settings, 0
        self.mapping, self._body, self._name = mapping, body, name or path.stem
        self._root = path if path.is_dir() else path.parent
        self._files = tuple(sorted(p for p in path.rglob(f"*{SUFFIX}") if not p.name.startswith("."))) if path.is_dir() else (path,)
        if not self._files or not all(file.is_file() for file in self._files):
            raise DatasetError(f"{path} holds no {SUFFIX} file. Fix: name a robot log, or a folder of them")
        self.refused: dict[str, str] = {}
        self._disorder: dict[str, Disorder] = {}
        self._open: tuple[int, LogFile] | None = None

    @property
    def name(self) -> str:
        """As the recipe names it."""
        return self._name

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The embodiment whose dimensions the mapping fills."""
        return self._body

    @property
    def digest(self) -> str:
        """SHA-256 of the files' bytes, the mapping and the embodiment."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        total = hashlib.sha256(f"{self.mapping.digest}{digest_of(document_of(self._body))}{digest_of(self._settings)}".encode())
        for file in self._files:
            total.update(f"{self._named(file)}\0{sha256_file(file)}\n".encode())
        return total.hexdigest()

    @cached_property
    def _plans(self) -> tuple[tuple[EpisodeIndexRow, int, EpisodePlan], ...]:
        found: list[tuple[EpisodeIndexRow, int, EpisodePlan]] = []
        split = split_recordings(self._files)
        for number, file in enumerate(self._files):
            if file in split:
                self.refused[self._named(file)] = split[file]
                continue
            try:
                series = read_series(self._log(number), self.mapping)
            except DatasetError as error:
                self.refused[self._named(file)] = str(error)
                continue
            self._disorder[self._named(file)] = Disorder.of(series)
            found_spans = spans(series, self.mapping)
            if not found_spans:
                self.refused[self._named(file)] = f"{self.mapping.episodes.topic} marks no episode in it"
            for place, span in enumerate(found_spans):
                episode_id = self._named(file) if self.mapping.episodes.by == "file" else f"{self._named(file)}-{place:04d}"
                try:
                    plan = plan_episode(series, span, self.mapping, float(self._body.control_hz))
                except DatasetError as error:
                    self.refused[episode_id] = f"{self._named(file)}: {error}"
                    continue
                found.append((self._row(len(found), episode_id, plan), number, plan))
        if not found:
            name, reason = next(iter(self.refused.items()))
            raise DatasetError(f"source {self.name!r}: none of {len(self.refused)} episodes can be used; the first, {name}: {reason}")
        used = {row.index for row in self._chosen([row for row, *_ in found])}
        self._left_out = len(found) - len(used)
        starts = np.cumsum([0, *(len(plan) for row, _, plan in found if row.index in used)]).tolist()
        kept = [entry for entry in found if entry[0].index in used]
        return tuple((replace(row, index=n, start=starts[n]), file, plan) for n, (row, file, plan) in enumerate(kept))

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """The episodes that the mapping accepts, file by file. Raises `DatasetError` where it accepts none."""
        return tuple(row for row, *_ in self._plans)

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index`, resampled to the control rate. There is no depth. Raises `DatasetError` for an image that cannot be read."""
        row, number, plan = self._plans[index]
        actions_TA = self._vector(plan, "actions")
        return Episode(
            episode_id=row.episode_id,
            embodiment=self._body.name,
            task=row.task,
            instruction=row.instruction,
            success=row.success,
            provenance=row.provenance,
            images=self._images(number, plan) if images else {},
            depth_m={},
            geometry={},
            proprio_TP=self._vector(plan, "state"),
            actions_TA=actions_TA,
            executed_TA=actions_TA,
            timestamps_T=(plan.grid_ns_T - plan.grid_ns_T[0]) / NS,
            tcp_T3=plan.values["tool_centre"].astype(np.float32) if self.mapping.tool_centre is not None else None,
            body=self._body,
            intervention_T=plan.values["intervention"][:, 0] != 0 if self.mapping.intervention is not None else None,
        )

    def account(self) -> dict[str, Any]:
        """What was resampled, dropped and duplicated in each episode, what was cut off, and what was refused, as JSON values."""
        return account_of({row.episode_id: plan for row, _, plan in self._plans}, self.refused, self._disorder)

    @property
    def notes(self) -> tuple[str, ...]:
        """The account in sentences."""
        plans = {row.episode_id: plan for row, _, plan in self._plans}
        left_out = [f"{self.name}: {self._left_out} episodes are left out by include or tasks"] if self._left_out else []
        return (*left_out, *notes_of(self.name, plans, self.refused, self._disorder))

    def close(self) -> None:
        """Close the open file."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _log(self, number: int) -> LogFile:
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, LogFile(self._files[number], self._named(self._files[number])))
        return self._open[1]

    def _named(self, file: Path) -> str:
        return file.relative_to(self._root).with_suffix("").as_posix().replace("/", "-")

    def _row(self, index: int, episode_id: str, plan: EpisodePlan) -> EpisodeIndexRow:
        provenance = Provenance(
            producer=self.mapping.producer, cell=self.mapping.cell, seed=0, versions={"mapping": self.mapping.digest[:16]}
        )
        return EpisodeIndexRow(
            index=index,
            number=index,
            episode_id=episode_id,
            task=self.mapping.task or plan.instruction,
            instruction=plan.instruction,
            length=len(plan),
            start=0,
            success=plan.success,
            provenance=provenance,
        )

    def _vector(self, plan: EpisodePlan, part: str) -> NDArray[np.float32]:
        maps = self.mapping.state if part == "state" else self.mapping.actions
        dims = self._body.proprio.dims if part == "state" else self._body.action.dims
        columns: dict[str, NDArray[np.float64]] = {}
        for one in maps:
            columns |= dict(zip(one.dims, plan.values[f"{part} {', '.join(one.dims)}"].T, strict=True))
        return np.stack([columns[dim.name] for dim in dims], axis=1).astype(np.float32)

    def _images(self, number: int, plan: EpisodePlan) -> dict[str, NDArray[np.uint8]]:
        """The images of all cameras in one pass over the part of the file that holds them."""
        wanted: dict[tuple[str, int, int], list[tuple[CameraSpec, int]]] = {}
        images = {c.name: np.zeros((len(plan), c.height, c.width, 3), np.uint8) for c in self._body.cameras}
        for camera in self._body.cameras:
            for step, (log_ns, repeat) in enumerate(plan.logged[f"camera {camera.name}"].tolist()):
                wanted.setdefault((self.mapping.cameras[camera.name].topic, log_ns, repeat), []).append((camera, step))
        times_ns = [log_ns for _, log_ns, _ in wanted]
        topics = sorted({topic for topic, _, _ in wanted})
        for message in self._log(number).messages(topics, min(times_ns), max(times_ns)):
            steps_of: dict[str, tuple[CameraSpec, list[int]]] = {}
            for camera, step in wanted.pop((message.topic, message.log_ns, message.repeat), ()):
                steps_of.setdefault(camera.name, (camera, []))[1].append(step)
            for name, (camera, steps) in steps_of.items():
                images[name][steps] = self._image(message, camera)
        if wanted:
            raise DatasetError(
                f"{self._named(self._files[number])}: {len(wanted)} images were there and are not now. Fix: restore the file"
            )
        return images

    def _image(self, message: LoggedMessage, camera: CameraSpec) -> NDArray[np.uint8]:
        mapped = self.mapping.cameras[camera.name]
        try:
            image_HW3 = decode_image(message.decode(), message.schema, encoding=mapped.encoding)
        except DatasetError as error:
            raise DatasetError(f"camera {camera.name} ({mapped.topic}): {error}") from error
        if image_HW3.shape[:2] != (camera.height, camera.width):
            raise DatasetError(
                f"camera {camera.name} ({mapped.topic}): an image is {image_HW3.shape[1]}x{image_HW3.shape[0]}, the embodiment states "
                f"{camera.width}x{camera.height}. Fix: correct the embodiment file"
            )
        return image_HW3[..., ::-1] if camera.color == "bgr" else image_HW3
