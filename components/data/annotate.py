"""Depth tokens and traces for every frame of every good episode; without a depth annotator, traces alone.

    out/labels/labels-00000.parquet   the labels (`components.data.labels`)
    out/annotators.json               versions of the depth annotator, the point annotator and the codebook
    out/vqvae/                        the depth codebook, frozen: trained on these episodes once; not for traces alone
    out/rejected.json                 {episode id: why it could not be labelled}
    out/provenance.json, out/points/  where each label came from (`components.data.labelling.provenance`)
    out/label_error.json              how far they are from a simulator's truth (`components.data.labelling.label_error`)
    out/cameras/<name>/               all of this for each further camera that the recipe names

A frame that cannot be labelled makes its whole episode rejected, with a reason; there are no empty labels. More rejected episodes of one
source than the recipe allows stop the stage, before the codebook is trained where that can be told. Answers of networks are kept per
batch and per episode, the codebook as soon as it is trained, so a killed run continues where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.config.launch.ray_config import RAY
from components.config.records import Progress
from components.data.accounting.rejections import Rejections
from components.data.annotators.cache import AnswerCache
from components.data.annotators.corrections import read_once
from components.data.annotators.interface import DepthAnnotator, Frames, GripperTrack, LabelledEpisodes, frames_of
from components.data.annotators.open import Annotators, open_annotators
from components.data.labelling.answered_frames import AnsweredFrames, Kept, label_images
from components.data.labelling.codebook import CodebookFolder, check_depth, make_codebook, spaced
from components.data.labelling.label_error import LabelError
from components.data.labelling.on_ray.frames import ClusterFrames, label_on_ray
from components.data.labelling.provenance import ProvenanceTable, record_of, write_points
from components.data.labelling.traces import RefinedTrack, refined, trace_labels
from components.data.labelling.views import View, views_of
from components.data.labels import EpisodeLabels, write_labels
from components.data.sources.open import open_raw
from components.data.sources.unlabelled import hand_on
from model_core.spec.contract import digest_of
from model_core.spec.episode import Episode
from model_core.spec.errors import ActwrightError, DatasetError
from model_core.spec.files import atomic_write
from model_core.spec.types import DEPTH_CELLS
from model_core.tokenization.depth.codec import DepthCodec

Chosen = Sequence[tuple[int, str, int]]  # of each episode: index, id, frames


def annotate(cfg: AnnotateConfig, dataset: Path, valid: Path, out: Path, progress: Progress, *, kept: Kept | None = None) -> dict[str, Any]:
    """Label the valid episodes of `dataset` into `out`; returns the record of the stage.

    valid: JSON file {episode id: true or false}. kept: what other stages and runs made (default: nothing; answers of networks are kept in
    `out`, for this run only). Raises `DatasetError` when no episode could be labelled, `GateError` when too many of a source cannot be.
    """
    reader = open_raw(dataset, None if kept is None else kept.images)
    verdicts = json.loads(valid.read_text(encoding="utf-8"))
    chosen = [row for row in reader.rows if verdicts.get(row.episode_id)]
    if not chosen:
        raise DatasetError(f"{valid.name} accepts none of the {len(reader.rows)} episodes; there is nothing to annotate")
    if not cfg.is_labelled:
        reader.close()
        return hand_on(chosen, out)
    views = views_of(reader)
    if strangers := [name for name in cfg.cameras if name not in views.cameras]:
        raise DatasetError(f"annotate.cameras: {strangers[0]!r} is no camera of {dataset.name}; it has {', '.join(views.cameras)}")
    cache = AnswerCache(folder=out / "scratch" / "answers" if kept is None else kept.answers)
    job = Labelling(
        cfg=cfg,
        annotators=open_annotators(cfg),
        source=reader,
        view_of=views.first,
        cache=cache,
        on_ray=ClusterFrames(dataset=dataset, views=views, cache=cache) if cfg.engine == RAY else None,
        sources={row.episode_id: row.provenance.producer for row in chosen},
    )
    episodes = [(row.index, row.episode_id, row.length) for row in chosen]
    try:
        record = job.run(episodes, out, progress)
        # Further cameras use the codebook of the first: a depth token means one thing in a data set.
        again = replace(cfg, codebook=str(out / "vqvae")) if cfg.has_depth else cfg
        for name in cfg.cameras:
            mine = [episode for episode in episodes if views.further(episode[0], name)]
            if mine:
                on_ray = job.on_ray and replace(job.on_ray, camera=name)
                replace(job, cfg=again, view_of=partial(views.named, camera=name), on_ray=on_ray).run(
                    mine, out / "cameras" / name, progress
                )
        notes = read_once(cfg.corrections).unused([row.episode_id for row in chosen], list(views.cameras))
        record |= {"notes": list(notes)} if notes else {}
        return record | ({"undigested": {"cost": job.on_ray.costs}} if job.on_ray is not None else {})
    finally:
        reader.close()


@dataclass(kw_only=True)
class Labelling:
    """One annotation of one camera of one data set: all that its steps share.

    view_of: index of an episode -> the camera that is labelled, of its embodiment. sources: episode id -> who recorded it, where it is
    known. on_ray: where a Ray cluster answers images.
    """

    cfg: AnnotateConfig
    annotators: Annotators
    source: LabelledEpisodes
    view_of: Callable[[int], View]
    cache: AnswerCache
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    on_ray: ClusterFrames | None = None
    _answered: dict[int, AnsweredFrames] = field(default_factory=dict[int, AnsweredFrames], init=False)

    def run(self, episodes: Chosen, out: Path, progress: Progress) -> dict[str, Any]:
        """Label `episodes`, in order, into `out`."""
        out.mkdir(parents=True, exist_ok=True)
        rejected = Rejections(most=self.cfg.max_rejected_fraction, frames={name: n for _, name, n in episodes}, sources=self.sources)
        self._answer_images(episodes, progress)
        codec, trained = self._codec(episodes, out, rejected, progress)
        labels, tracks, whose = dict[str, EpisodeLabels](), dict[str, RefinedTrack](), ProvenanceTable()
        errors = LabelError(annotators=self.annotators)
        for done, (index, episode_id, _) in enumerate(episodes):
            progress.update(done, len(episodes), f"label {episode_id}")
            if episode_id in rejected.reasons:
                continue
            try:
                frames = self._frames(index)
                labels[episode_id], tracks[episode_id] = self._label(frames, codec, errors)
                self._tell(whose, frames.frames, codec, tracks[episode_id].track)
            except ActwrightError as error:
                rejected.add(episode_id, str(error))
        if not labels:
            raise DatasetError(f"no episode could be labelled; the first reason: {next(iter(rejected.reasons.values()))}")
        who = self.annotators.versions() | ({} if codec is None else {"codebook": codec.digest})
        write_labels(out / "labels", labels, who)
        write_points(out / "points", tracks)
        whose.write(out / "provenance.json")
        errors.write(out)
        _write_json(out / "annotators.json", who)
        _write_json(out / "rejected.json", rejected.reasons)
        progress.update(len(episodes), len(episodes), f"labelled {len(labels)} episodes, rejected {len(rejected.reasons)}")
        frames = sum(len(label) for label in labels.values())
        counts = {"episodes": len(labels), "rejected": len(rejected.reasons), "frames": frames}
        return {**counts, "annotators": who, "vqvae": trained, "account": rejected.tally().rows()}

    def _frames(self, index: int) -> AnsweredFrames:
        """What an episode is labelled from: without its images, where every annotator that needs them has answered."""
        known = self._answered.get(index)
        needs = self.annotators.needs_images and (known is None or not known.is_whole)
        frames = self._camera_frames(index, self.source.episode(index, images=needs, depth=True))
        return AnsweredFrames(frames=frames, cache=self.cache) if known is None else replace(known, frames=frames)

    def _label(self, frames: AnsweredFrames, codec: DepthCodec | None, errors: LabelError) -> tuple[EpisodeLabels, RefinedTrack]:
        depth = self.annotators.depth
        depth_THW, track = None if depth is None else frames.depth(depth), self._track(frames)
        codes_TG = None if codec is None or depth_THW is None else codec.encode(depth_THW)
        trace_T52 = self._traces(track, frames.frames.size)
        if codes_TG is not None and codes_TG.shape != (len(trace_T52), DEPTH_CELLS):
            raise DatasetError(f"expected depth codes for {len(trace_T52)} frames, got {codes_TG.shape}")
        if not errors.is_truth:
            errors.add(frames.frames, frames.track(self.annotators.points), track.track, depth_THW)
        return EpisodeLabels(codes_TG=codes_TG, trace_T52=trace_T52), track

    def _track(self, frames: AnsweredFrames) -> RefinedTrack:
        return refined(frames.track(self.annotators.points), self.cfg, frames.frames.size, frames.frames)

    def _traces(self, track: RefinedTrack, size: tuple[int, int]) -> NDArray[np.int16]:
        return trace_labels(track.track, size, self.cfg.trace_points, self.annotators.points.version)

    def _answer_images(self, episodes: Chosen, progress: Progress) -> None:
        """Ask the annotators that look at single images, in batches over all episodes, one annotator after the other."""
        if self.on_ray is None:
            self._answered = label_images(self.cfg, self.annotators, self.cache, lambda: self._images(episodes, progress))
        else:
            self._answered = label_on_ray(self.cfg, self.annotators, self.on_ray, episodes, progress)

    def _images(self, episodes: Chosen, progress: Progress) -> Iterator[tuple[int, AnsweredFrames]]:
        for done, (index, episode_id, _) in enumerate(episodes):
            progress.update(done, len(episodes), f"ask about {episode_id}")
            try:
                episode = self.source.episode(index, images=True, depth=True)
            except ActwrightError:  # rejected with its reason when it is labelled
                continue
            yield index, AnsweredFrames(frames=self._camera_frames(index, episode), cache=self.cache)

    def _camera_frames(self, index: int, episode: Episode) -> Frames:
        view = self.view_of(index)
        return frames_of(episode, view.camera, view.size, view.body)

    def _tell(self, whose: ProvenanceTable, frames: Frames, codec: DepthCodec | None, track: GripperTrack) -> None:
        if codec is not None:
            depth = record_of(self.annotators.depth, {"camera": frames.camera, "codebook": codec.digest})
            whose.add(frames.episode_id, "depth", [whose.number(depth)] * frames.count)
        steps = {name: getattr(self.cfg, name) for name in ("trace_points", "min_confidence", "max_jump", "smooth_frames")}
        points = record_of(self.annotators.points, {"camera": frames.camera, **steps})
        by_T = track.by_T or ("",) * frames.count
        numbers = {name: whose.number(points | ({"reviewer": name} if name else {})) for name in dict.fromkeys(by_T)}
        whose.add(frames.episode_id, "points", [numbers[name] for name in by_T])

    def _codec(self, episodes: Chosen, out: Path, rejected: Rejections, progress: Progress) -> tuple[DepthCodec | None, Mapping[str, Any]]:
        """The codebook: trained on evenly spaced frames of all episodes, or found finished from a killed run. None for traces alone."""
        depth = self.annotators.depth
        if depth is None:
            return None, {}
        wanted = digest_of([asdict(self.cfg.vqvae), depth.version, [list(e) for e in episodes]])
        folder = CodebookFolder(folder=out / "vqvae", made_for=wanted)
        if (found := folder.found()) is not None:
            codec, note = found
            for episode_id, reason in note["rejected"].items():
                rejected.add(episode_id, reason)
            return codec, note["report"]
        stride = max(1, sum(length for _, _, length in episodes) // max(self.cfg.vqvae.frames, 1))
        maps = list(spaced(self._depth_maps(depth, episodes, rejected, progress), stride))
        if not maps:
            first = next(iter(rejected.reasons.values()))
            raise DatasetError(f"no episode has depth to learn a codebook from; the first reason: {first}")
        codec, report = make_codebook(self.cfg, depth.scaling, maps, progress.update)
        folder.keep(codec, report, rejected.reasons)
        return codec, report

    def _depth_maps(
        self, depth: DepthAnnotator, episodes: Chosen, rejected: Rejections, progress: Progress
    ) -> Iterator[tuple[NDArray[np.number] | None, int]]:
        """Depth of every episode that can be labelled, as far as that can be told before the codebook is trained."""
        points = self.annotators.points
        for done, (index, episode_id, length) in enumerate(episodes):
            progress.update(done, 2 * len(episodes), f"read depth of {episode_id}")
            try:
                frames = self._frames(index)
                if not points.needs_images or frames.is_whole:
                    self._traces(self._track(frames), frames.frames.size)
                depth_THW = frames.depth(depth)
                check_depth(depth_THW, length, depth.scaling.kind)
            except ActwrightError as error:
                rejected.add(episode_id, str(error))
                yield None, length
            else:
                yield depth_THW, length


def _write_json(path: Path, document: object) -> None:
    atomic_write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
