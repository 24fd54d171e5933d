"""Recorded closed-loop observations on disk: one compressed file, written and read here."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import SpecError, require
from model_core.spec.types import Observation

_CAMERA = "image."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sighting:
    """One observation of a recording and its place. consumed: rows executed since the session's decision before (0 at its first)."""

    observation: Observation
    session: int
    consumed: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """T observations, session after session, in the order in which they were decided.

    images: camera -> uint8 (T, H, W, 3). proprio_TP float32. instruction_T: index into `instructions`. session_T, consumed_T int64.
    source: who drove and where: checkpoint digest, tasks, seeds, how many rows of a chunk were executed.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprio_TP: NDArray[np.float32]
    instructions: tuple[str, ...]
    instruction_T: NDArray[np.int64]
    session_T: NDArray[np.int64]
    consumed_T: NDArray[np.int64]
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(array) for array in (*self.images.values(), self.proprio_TP, self.instruction_T, self.session_T, self.consumed_T)}
        require(len(lengths) == 1, "the columns of a recording differ in length", got=sorted(lengths))
        require(len(self) > 0, "a recording holds no observation")

    def __len__(self) -> int:
        return len(self.session_T)

    def __getitem__(self, index: int) -> Sighting:
        seen = Observation(
            images={name: frames[index] for name, frames in self.images.items()},
            proprio_P=self.proprio_TP[index],
            instruction=self.instructions[int(self.instruction_T[index])],
        )
        return Sighting(observation=seen, session=int(self.session_T[index]), consumed=int(self.consumed_T[index]))

    def __iter__(self) -> Iterator[Sighting]:
        return (self[index] for index in range(len(self)))

    def sessions(self) -> list[list[Sighting]]:
        """The sightings of each session, in order."""
        found: dict[int, list[Sighting]] = {}
        for sighting in self:
            found.setdefault(sighting.session, []).append(sighting)
        return list(found.values())

    def first(self, count: int) -> Recording:
        """The first `count` decisions; sessions are cut, never mixed. Raises `SpecError` when there are fewer."""
        if count > len(self):
            raise SpecError(f"the recording holds {len(self)} decisions, {count} were asked for; record more, or ask for fewer")
        return replace(
            self,
            images={name: frames[:count] for name, frames in self.images.items()},
            proprio_TP=self.proprio_TP[:count],
            instruction_T=self.instruction_T[:count],
            session_T=self.session_T[:count],
            consumed_T=self.consumed_T[:count],
        )

    def save(self, path: Path) -> Path:
        """Write one compressed npz, whole or not at all."""
        about = json.dumps({"format": 1, "instructions": list(self.instructions), "source": dict(self.source)}, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.stem}.writing.npz")
        np.savez_compressed(
            beside,
            about=np.array(about),
            proprio=self.proprio_TP,
            instruction=self.instruction_T,
            session=self.session_T,
            consumed=self.consumed_T,
            **{_CAMERA + name: frames for name, frames in self.images.items()},  # pyright: ignore[reportArgumentType]
        )
        return beside.replace(path)


def load_recording(path: Path) -> Recording:
    """Read what `Recording.save` wrote. Raises `SpecError` when the file is missing or is none."""
    try:
        with np.load(path, allow_pickle=False) as opened:
            about = json.loads(str(opened["about"]))
            return Recording(
                images={name.removeprefix(_CAMERA): opened[name] for name in opened.files if name.startswith(_CAMERA)},
                proprio_TP=opened["proprio"],
                instructions=tuple(about["instructions"]),
                instruction_T=opened["instruction"],
                session_T=opened["session"],
                consumed_T=opened["consumed"],
                source=about["source"],
            )
    except FileNotFoundError as error:
        raise SpecError(f"no recording at {path}; make one with `actwright bench record {path}`") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path} is not a recording of observations: {error}") from error
