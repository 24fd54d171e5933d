"""Recordings of our own cells as a source: one file an episode, read where it is, in the terms of one embodiment.

A recording that cannot be read, or whose episode failed, is left out and counted; one of another embodiment refuses the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from components.config.source_config import SourceConfig
from components.data.inspection.body import BodyCheck, check_recording, converted, explain
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.recordings import SUFFIXES, RecordingHead, is_dataset, read_head, recordings_in, still_recorded
from components.data.sources.include import chosen_rows
from components.data.sources.location import located
from model_core.spec.contract import EmbodimentSpec, digest_of, document_of
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError, SpecError, WireError
from model_core.spec.protocol.episode_file import decode_episode, episode_digest

_OF_THE_ROBOT = ("hub", "revision", "cameras", "actions", "proprio", "rate_hz", "stride")  # what a recording already has
_OPTIONS = ("keep_failures", "only_successful")


def open_recordings(cfg: SourceConfig) -> RecordingsSource:
    """The recordings below the folder that `cfg` names, as `actwright workcell run --record FOLDER` leaves them.

    embodiment: empty for what the cells stated of their robot. options: keep_failures (also episodes that failed at their task: a
    policy's own actions are its labels), only_successful (leave out those whose recording does not say how they ended, too).
    Raises `SpecError` for a setting that recordings do not have, `DatasetError` for a folder without recordings or that a cell still
    records into, for recordings of another embodiment, and where none is left.
    """
    from components.data.embodiments.file import find_file, read_embodiment

    _check_settings(cfg)
    folder = located(cfg)
    if not folder.is_dir() or is_dataset(folder):
        got = "a LeRobot data set" if folder.is_dir() else "a file"
        raise DatasetError(
            f"source {cfg.name!r}: expected a folder of recordings, got {got} at {cfg.path}. Fix: name the folder that "
            "`actwright workcell run --record` wrote; a data set is a source of kind 'lerobot'"
        )
    if mark := still_recorded(folder):
        raise DatasetError(
            f"source {cfg.name!r}: a cell still records into {cfg.path} ({mark}). Fix: end the cell first, or copy its finished "
            "recordings to a folder of their own; where no cell runs, remove the unfinished file that a killed one left"
        )
    return RecordingsSource(cfg, folder, read_embodiment(find_file(cfg.embodiment)) if cfg.embodiment else None)


def _check_settings(cfg: SourceConfig) -> None:
    where, defaults = f"source {cfg.name!r}", SourceConfig(name=cfg.name, kind=cfg.kind)
    if wrong := [name for name in _OF_THE_ROBOT if getattr(cfg, name) != getattr(defaults, name)]:
        raise SpecError(f"{where}: recordings have the cameras, actions and rate of their robot. Fix: leave {wrong[0]} out")
    if unknown := sorted(set(cfg.options) - set(_OPTIONS)):
        raise SpecError(f"{where}: unknown option {unknown[0]!r}, expected {' or '.join(_OPTIONS)}. Fix: leave it out")
    if wrong := [name for name, value in cfg.options.items() if not isinstance(value, bool)]:
        raise SpecError(f"{where}: option {wrong[0]!r}: expected true or false, got {cfg.options[wrong[0]]!r}. Fix: correct it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    """One recording that is used. episode: without its arrays."""

    head: RecordingHead
    episode: Episode
    row: EpisodeIndexRow


class RecordingsSource:
    """Episodes of cells' recordings: an `EpisodeSource`. body: what they must be of; None: what the first that says it states."""

    def __init__(self, cfg: SourceConfig, folder: Path, body: EmbodimentSpec | None) -> None:
        self.cfg, self.folder = cfg, folder
        self._left_out: Counter[str] = Counter()
        self._unreadable: dict[str, str] = {}
        self._recordings = self._used(self._found())
        self.embodiment = body or self._stated()
        self._checks = self._compared()

    @property
    def name(self) -> str:
        """As the recipe names it."""
        return self.cfg.name

    @cached_property
    def digest(self) -> str:
        """Of the episodes that are used, in order, and the embodiment; not of the folder or the names of files."""
        return digest_of({"recordings": [r.head.digest for r in self._recordings], "embodiment": document_of(self.embodiment)})

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """The recordings that are used, by the names of their files."""
        return tuple(r.row for r in self._recordings)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out, converted or not described, as sentences."""
        left_out = [f"{count} recordings are left out: {reason}" for reason, count in sorted(self._left_out.items())]
        unreadable = [f"{file} cannot be read and is left out ({reason})" for file, reason in sorted(self._unreadable.items())]
        told = Counter(explain(conversion) for check in self._checks for conversion in check.conversions)
        changed = [f"{sentence} ({count} recordings)" for sentence, count in sorted(told.items())]
        plain = sum(not check.is_described for check in self._checks)
        taken = [f"{plain} recordings do not say what their numbers mean; they are taken as the embodiment says"] if plain else []
        return tuple(f"{self.name}: {sentence}" for sentence in (*left_out, *unreadable, *changed, *taken))

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index` of `rows`. Raises `DatasetError` for a file that is gone, cannot be read or was changed since it was opened."""
        head = self._recordings[index].head
        where = f"source {self.name!r}: recording {head.path.name}"
        try:
            data = head.path.read_bytes()
            episode = decode_episode(data, images=images, depth=depth)
        except (OSError, WireError) as error:
            raise DatasetError(f"{where} cannot be read ({error}). Fix: restore it, and run again") from error
        if episode_digest(data) != head.digest:
            raise DatasetError(f"{where} was changed while it was in use. Fix: end the cell that records, and run again")
        return converted(episode, self._checks[index].conversions, self.embodiment)

    def close(self) -> None:
        """Nothing stays open."""

    def _found(self) -> list[_Recording]:
        """Every recording that can be read, once. Raises `DatasetError` where there is none, and for two that differ under one id."""
        paths = recordings_in(self.folder)
        if not paths:
            raise DatasetError(
                f"source {self.name!r}: nothing is recorded in {self.folder} (no {' or '.join('*' + s for s in SUFFIXES)}). "
                "Fix: name the folder that `actwright workcell run --record` wrote"
            )
        found: dict[str, _Recording] = {}
        for number, head in enumerate(map(read_head, paths)):
            if head.episode is None:
                self._unreadable[head.path.name] = head.fault
                continue
            known = found.setdefault(
                head.episode.episode_id, _Recording(head=head, episode=head.episode, row=_row(head.episode, number, head))
            )
            if known.head.digest != head.digest:
                raise DatasetError(
                    f"source {self.name!r}: {known.head.path.name} and {head.path.name} both hold an episode {head.episode.episode_id!r} "
                    "and differ. Fix: leave the wrong one out of the folder, and give each cell a name of its own"
                )
            self._left_out["there already"] += known.head.path != head.path
        if not found:
            name, fault = next(iter(self._unreadable.items()))
            raise DatasetError(
                f"source {self.name!r}: none of {len(paths)} recordings can be read; the first, {name}: {fault}. Fix: copy them again "
                "from where they were recorded"
            )
        return list(found.values())

    def _used(self, found: Sequence[_Recording]) -> list[_Recording]:
        """Those that the recipe includes and whose episode did not fail. Raises `DatasetError` where none is left."""
        wanted = {row.number for row in chosen_rows(self.cfg, [recording.row for recording in found])}
        kept: list[_Recording] = []
        start = 0
        for recording in found:
            reason = self._failed(recording.row) if recording.row.number in wanted else "by include or tasks"
            if reason:
                self._left_out[reason] += 1
                continue
            kept.append(replace(recording, row=replace(recording.row, index=len(kept), start=start)))
            start += recording.row.length
        self._left_out = +self._left_out
        if not kept:
            reasons = ", ".join(f"{reason} ({count}x)" for reason, count in sorted(self._left_out.items()))
            raise DatasetError(
                f"source {self.name!r}: none of {len(found)} recordings is used: {reasons}. Fix: correct include, tasks or options"
            )
        return kept

    def _failed(self, row: EpisodeIndexRow) -> str:
        """Why an episode is left out for how it ended; "" where it is not."""
        if row.success is False and not self.cfg.options.get("keep_failures", False):
            return "did not solve its task"
        is_strict = self.cfg.options.get("only_successful", False)
        return "its recording does not say how it ended" if row.success is None and is_strict else ""

    def _stated(self) -> EmbodimentSpec:
        for recording in self._recordings:
            if recording.episode.body is not None:
                return recording.episode.body
        raise DatasetError(
            f"source {self.name!r}: no recording says what robot recorded it, as those of older versions. "
            "Fix: name an embodiment file in the recipe's source"
        )

    def _compared(self) -> list[BodyCheck]:
        """What came of comparing each recording with the embodiment. Raises `DatasetError` where one is of another."""
        total = len(self._recordings)
        strangers = [r.episode for r in self._recordings if r.episode.embodiment != self.embodiment.name]
        if strangers:
            raise DatasetError(
                f"source {self.name!r}: {len(strangers)} of {total} recordings are of another robot than {self.embodiment.name!r}, such as "
                f"{strangers[0].episode_id!r} of {strangers[0].embodiment!r}. Fix: select one robot's with include, or name its folder"
            )
        checks = [check_recording(r.head.path.name, r.episode, self.embodiment) for r in self._recordings]
        if findings := [check.findings[0] for check in checks if check.findings]:
            raise DatasetError(
                f"source {self.name!r}: {len(findings)} of {total} recordings were made under a contract with another embodiment; "
                f"{findings[0].where}: {findings[0].reason}"
            )
        return checks


def _row(episode: Episode, number: int, head: RecordingHead) -> EpisodeIndexRow:
    return EpisodeIndexRow(
        index=number,
        number=number,
        episode_id=episode.episode_id,
        task=episode.task,
        instruction=episode.instruction,
        length=head.length,
        start=0,
        success=episode.success,
        provenance=episode.provenance,
    )
