"""A LeRobot data set of any writer as a source: its columns, cameras and rate become those of an embodiment that a person confirmed.

Nothing is scaled, guessed or filled in. What is left out or put together is counted and told in `notes`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.config.source_config import SourceConfig
from components.data.lerobot import layout
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.lerobot.meta.info import names_of
from components.data.lerobot.reader import DatasetReader
from components.data.sources.columns import Features, Place, any_of_n, every_nth, picked, places_of
from components.data.sources.include import chosen_rows
from components.data.sources.location import contents_digest, located
from model_core.spec.contract import EmbodimentSpec, digest_of, document_of
from model_core.spec.documents import identity_document
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

_OF_THE_RECIPE = ("name", "hub", "revision", "embodiment", "weight")  # say where it is and how often it is drawn, not what an episode holds


def open_lerobot(cfg: SourceConfig) -> LeRobotSource:
    """The data set that `cfg` names. Raises `DatasetError` or `SpecError` where it does not fit its embodiment; reads no image."""
    from components.data.embodiments.file import find_file, read_embodiment

    reader = DatasetReader(located(cfg))
    return LeRobotSource(cfg, reader, read_embodiment(find_file(cfg.embodiment)) if cfg.embodiment else reader.embodiment)


class LeRobotSource:
    """Episodes of one LeRobot data set in the names, order and rate of an embodiment: an `EpisodeSource`."""

    def __init__(self, cfg: SourceConfig, reader: DatasetReader, embodiment: EmbodimentSpec) -> None:
        self.cfg, self.reader = cfg, reader
        self.embodiment = embodiment
        self.stride = _stride(cfg, reader.fps, embodiment)
        self.cameras = {camera.name: self._camera(camera.name, (camera.height, camera.width)) for camera in embodiment.cameras}
        where = f"source {cfg.name!r}, actions"
        self.action_places = places_of(where, embodiment.action, cfg.actions, self._features, layout.ACTION)
        where = f"source {cfg.name!r}, proprio"
        self.proprio_places = places_of(where, embodiment.proprio, cfg.proprio, self._features, layout.STATE)
        self._digest = ""

    @property
    def name(self) -> str:
        """As the recipe names it."""
        return self.cfg.name

    @property
    def digest(self) -> str:
        """Of the files, the embodiment and the maps; not of the folder or the name."""
        if not self._digest:
            settings = {name: value for name, value in identity_document(self.cfg).items() if name not in _OF_THE_RECIPE}
            contents = contents_digest(self.reader.root)
            self._digest = digest_of({"contents": contents, "embodiment": document_of(self.embodiment), "settings": settings})
        return self._digest

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """The episodes that the recipe includes, in the order of the data set."""
        return tuple(ours for ours, _ in self._chosen)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out or put together, as sentences."""
        told: list[str] = []
        left_out = len(self.reader) - len(self.rows)
        if left_out:
            told.append(f"{self.name}: {left_out} of {len(self.reader)} episodes are left out by include or tasks")
        if self.stride > 1:
            lost = sum(theirs.length % self.stride for _, theirs in self._chosen)
            told.append(
                f"{self.name}: every {self.stride} frames at {self.reader.fps:g} Hz become one step at {self.embodiment.control_hz:g} Hz "
                f"(deltas are added up, velocities averaged, of places the last is taken); {lost} frames at ends of episodes are left out"
            )
        unused = [name for name in self.reader.cameras if name not in self.cameras.values()]
        if unused:
            told.append(f"{self.name}: cameras that the embodiment does not have are left out: {', '.join(unused)}")
        return tuple(told)

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index` of `rows` in the terms of the embodiment. Raises `DatasetError` for what cannot be read."""
        row, theirs = self._chosen[index]
        read = self.reader.episode(theirs.index, images=False, depth=depth)
        columns = self.reader.table.columns_of(slice(theirs.start, theirs.start + theirs.length))
        actions_TA = every_nth(picked(columns, self.action_places), self.embodiment.action.modes, self.stride)
        executed = _renamed(self.action_places, layout.ACTION, layout.EXECUTED)
        is_recorded = layout.EXECUTED in columns and executed != self.action_places
        sent_TA = every_nth(picked(columns, executed), self.embodiment.action.modes, self.stride) if is_recorded else actions_TA
        steps = slice(0, row.length * self.stride, self.stride)
        frames = {ours: self.reader.images(theirs.index, name)[steps] for ours, name in self.cameras.items()} if images else {}
        return replace(
            read,
            episode_id=row.episode_id,
            embodiment=self.embodiment.name,
            task=row.task,
            instruction=row.instruction,
            provenance=row.provenance,
            images=frames,
            depth_m={ours: read.depth_m[name][steps] for ours, name in self.cameras.items() if name in read.depth_m},
            geometry={ours: read.geometry[name] for ours, name in self.cameras.items() if name in read.geometry},
            proprio_TP=picked(columns, self.proprio_places)[steps],
            actions_TA=actions_TA,
            executed_TA=sent_TA,
            timestamps_T=read.timestamps_T[steps],
            tcp_T3=None if read.tcp_T3 is None else read.tcp_T3[steps],
            intervention_T=None if read.intervention_T is None else any_of_n(read.intervention_T, self.stride),
        )

    def images(self, index: int, camera: str, steps: range) -> NDArray[np.uint8]:
        """These steps (T, H, W, 3) of one of our cameras of episode `index`; nothing else of the episode is read."""
        theirs, step = self._chosen[index][1], self.stride
        return self.reader.images(theirs.index, self.cameras[camera], range(steps.start * step, (steps.stop - 1) * step + 1))[::step]

    @property
    def resolved(self) -> dict[str, object]:
        """Our camera -> theirs and our dimensions -> "feature[place]", for the index that people read."""
        found: dict[str, object] = {"cameras": self.cameras, "stride": self.stride}
        for kind, vector, places in (
            ("action", self.embodiment.action, self.action_places),
            ("proprio", self.embodiment.proprio, self.proprio_places),
        ):
            found[kind] = {dim.name: f"{feature}[{place}]" for dim, (feature, place) in zip(vector.dims, places, strict=True)}
        return found

    def close(self) -> None:
        """Close open films."""
        self.reader.close()

    @cached_property
    def _chosen(self) -> tuple[tuple[EpisodeIndexRow, EpisodeIndexRow], ...]:
        """(our row, the data set's row) of every episode that is used."""
        chosen = chosen_rows(self.cfg, self.reader.rows)
        if not chosen:
            raise DatasetError(
                f"source {self.name!r}: include and tasks leave none of its {len(self.reader)} episodes. Its instructions: "
                f"{', '.join(map(repr, self.reader.instructions[:5]))}. Fix: correct them in the recipe"
            )
        is_plain = self.reader.described is None
        return tuple((self._ours(place, row, is_plain=is_plain), row) for place, row in enumerate(chosen))

    def _ours(self, place: int, row: EpisodeIndexRow, *, is_plain: bool) -> EpisodeIndexRow:
        named = replace(row, index=place, length=row.length // self.stride)
        if not is_plain:
            return named
        provenance = replace(row.provenance, producer=f"dataset:{self.name}")
        return replace(named, episode_id=f"{self.name}-{row.number:06d}", provenance=provenance)

    def _camera(self, ours: str, size: tuple[int, int]) -> str:
        theirs = self.cfg.cameras.get(ours, ours).removeprefix(layout.IMAGE_PREFIX)
        if theirs not in self.reader.cameras:
            raise DatasetError(
                f"source {self.name!r} has no camera {theirs!r} for our {ours!r}; it has {', '.join(self.reader.cameras) or 'none'}. "
                "Fix: map it in the recipe's source under cameras (ours: theirs)"
            )
        if (stated := self.reader.picture_size(theirs)) not in (None, size):
            raise DatasetError(
                f"source {self.name!r}: images of camera {theirs!r} are {stated} (height, width), the embodiment's {ours!r} has {size}. "
                "Fix: correct the size in the embodiment file; a cell sends images as its camera takes them"
            )
        return theirs

    @cached_property
    def _features(self) -> Features:
        table = self.reader.table.columns
        widths = {name: values.shape[1] if values.ndim == 2 else 1 for name, values in table.items()}
        names = {name: names_of(self.reader.features[name]) for name in widths if name in self.reader.features}
        return Features(widths=widths, names={name: found for name, found in names.items() if len(found) == widths[name]})


def _renamed(places: tuple[Place, ...], old: str, new: str) -> tuple[Place, ...]:
    return tuple((new if feature == old else feature, place) for feature, place in places)


def _stride(cfg: SourceConfig, fps: float, embodiment: EmbodimentSpec) -> int:
    """How many frames of the set are one step of the embodiment. Raises `DatasetError` where that is not said or not a whole number."""
    hz = float(embodiment.control_hz)
    stride = round(fps / cfg.rate_hz) if cfg.rate_hz and cfg.stride == 1 else cfg.stride
    if abs(fps / stride - hz) > 1e-6 * hz or (cfg.rate_hz and abs(cfg.rate_hz - hz) > 1e-6 * hz):
        whole = round(fps / hz)
        todo = f"set stride {whole} in the recipe's source" if whole > 1 and abs(fps / whole - hz) <= 1e-6 * hz else "correct control_hz"
        raise DatasetError(
            f"source {cfg.name!r} has {fps:g} frames a second, with stride {stride} that is {fps / stride:g} Hz; the embodiment "
            f"{embodiment.name!r} acts at {hz:g} Hz. Fix: {todo}"
        )
    if stride > 1 and "relative" in embodiment.action.modes:
        raise DatasetError(
            f"source {cfg.name!r}: actions relative to the start of a chunk cannot be put together over {stride} frames. Fix: use stride 1"
        )
    return stride
