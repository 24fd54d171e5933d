"""Depth tokens and traces for every frame of every good episode.

    out/labels/labels-00000.parquet   the labels (`components.data.labels`)
    out/annotators.json               versions of the depth annotator, the point annotator and the codebook
    out/vqvae/                        the depth codebook, frozen: trained on these episodes once
    out/rejected.json                 {episode id: why it could not be labelled}

A frame that cannot be labelled makes its whole episode rejected, with a reason; there are no empty labels. More rejected episodes of one
source than the recipe allows stop the stage, before the codebook is trained where that can be told. Answers of networks are kept per
episode, the codebook as soon as it is trained, so a killed run continues where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig, VqvaeConfig
from components.config.records import Progress
from components.data.accounting.rejections import Rejections
from components.data.annotators.cache import AnswerCache
from components.data.annotators.codebook import given_codec
from components.data.annotators.interface import Frames, GripperTrack, body_of, frames_of
from components.data.annotators.open import Annotators, open_annotators
from components.data.labels import EpisodeLabels, write_labels
from model_core.spec.contract import digest_of
from model_core.spec.episode import Episode
from model_core.spec.errors import ActwrightError, DatasetError
from model_core.spec.files import atomic_write
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS
from model_core.tokenization.depth.codec import DepthCodec
from model_core.tokenization.depth.config import DepthConfig
from model_core.tokenization.depth.training import DepthTraining, train_vqvae
from model_core.tokenization.trace import future_traces


class EpisodeSource(Protocol):
    """What is read of a data set: `DatasetReader`, or a list of episodes in tests."""

    def episode(self, index: int, *, images: bool, depth: bool) -> Episode:
        """Episode `index`; images and depth only when asked for."""
        ...


def annotate(
    cfg: AnnotateConfig, dataset: Path, valid: Path, out: Path, progress: Progress, *, cache: Path | None = None
) -> dict[str, Any]:
    """Label the valid episodes of `dataset` into `out`; returns the record of the stage.

    valid: JSON file {episode id: true or false}. cache: where answers of networks are kept between runs (default: in
    `out`, for this run only). Raises `DatasetError` when no episode could be labelled, `GateError` when too many of a source cannot be.
    """
    from components.data.lerobot.reader import DatasetReader

    reader = DatasetReader(dataset)
    verdicts = json.loads(valid.read_text(encoding="utf-8"))
    chosen = [row for row in reader.rows if verdicts.get(row.episode_id)]
    if not chosen:
        raise DatasetError(f"{valid.name} accepts none of the {len(reader)} episodes; there is nothing to annotate")
    camera = reader.cameras[0]
    size = reader.picture_size(camera)
    if size is None:
        raise DatasetError(
            f"the data set does not state the size of camera {camera!r}. Fix: write the shape of its feature in meta/info.json"
        )
    job = Labelling(
        cfg=cfg,
        annotators=open_annotators(cfg),
        source=reader,
        camera=camera,
        size=size,
        cache=AnswerCache(folder=cache or out / "scratch" / "answers"),
        sources={row.episode_id: row.provenance.producer for row in chosen},
    )
    try:
        return job.run([(row.index, row.episode_id, row.length) for row in chosen], out, progress)
    finally:
        reader.close()


@dataclass(kw_only=True)
class Labelling:
    """One annotation of one data set: all that its steps share. sources: episode id -> who recorded it, where it is known."""

    cfg: AnnotateConfig
    annotators: Annotators
    source: EpisodeSource
    camera: str
    size: tuple[int, int]
    cache: AnswerCache
    sources: Mapping[str, str] = field(default_factory=dict)

    def run(self, episodes: Sequence[tuple[int, str, int]], out: Path, progress: Progress) -> dict[str, Any]:
        """Label `episodes` (index, id, frames), in order, into `out`."""
        out.mkdir(parents=True, exist_ok=True)
        rejected = Rejections(most=self.cfg.max_rejected_fraction, frames={name: n for _, name, n in episodes}, sources=self.sources)
        codec, trained = self._codec(episodes, out, rejected, progress)
        labels: dict[str, EpisodeLabels] = {}
        for done, (index, episode_id, _) in enumerate(episodes):
            progress.update(done, len(episodes), f"label {episode_id}")
            if episode_id in rejected.reasons:
                continue
            try:
                labels[episode_id] = self._label(self._frames(index), codec)
            except ActwrightError as error:
                rejected.add(episode_id, str(error))
        if not labels:
            raise DatasetError(f"no episode could be labelled; the first reason: {next(iter(rejected.reasons.values()))}")
        who = {"depth": self.annotators.depth.version, "points": self.annotators.points.version, "codebook": codec.digest}
        write_labels(out / "labels", labels, who)
        _write_json(out / "annotators.json", who)
        _write_json(out / "rejected.json", rejected.reasons)
        progress.update(len(episodes), len(episodes), f"labelled {len(labels)} episodes, rejected {len(rejected.reasons)}")
        frames = sum(len(label.codes_TG) for label in labels.values())
        counts = {"episodes": len(labels), "rejected": len(rejected.reasons), "frames": frames}
        return {**counts, "annotators": who, "vqvae": trained, "account": rejected.tally().rows()}

    def _frames(self, index: int) -> Frames:
        images = self.annotators.needs_images
        episode = self.source.episode(index, images=images, depth=True)
        return frames_of(episode, self.camera, self.size, body_of(self.source))

    def _label(self, frames: Frames, codec: DepthCodec) -> EpisodeLabels:
        codes_TG = codec.encode(self._depth(frames))
        trace_T52 = self._traces(frames)
        if codes_TG.shape != (len(trace_T52), DEPTH_CELLS):
            raise DatasetError(f"expected depth codes for {len(trace_T52)} frames, got {codes_TG.shape}")
        return EpisodeLabels(codes_TG=codes_TG, trace_T52=trace_T52)

    def _traces(self, frames: Frames) -> NDArray[np.int16]:
        track = self._track(frames)
        height, width = self.size
        traces = future_traces(track.points_T2, track.visible_T, width=width, height=height, points=self.cfg.trace_points)
        trace_T52 = np.full((len(traces), TRACE_MAX_POINTS, 2), -1, np.int16)
        for t, trace in enumerate(traces):
            if trace is None:
                raise DatasetError(f"the gripper was not found in any frame of this episode ({self.annotators.points.version})")
            trace_T52[t, : len(trace.points_N2)] = trace.points_N2
        return trace_T52

    def _depth(self, frames: Frames) -> NDArray[np.number]:
        annotator = self.annotators.depth
        if not annotator.needs_images:
            return annotator.annotate(frames)
        kept = self.cache.fetch(annotator.version, frames.digest(), lambda: {"depth": annotator.annotate(frames)})
        return np.asarray(kept["depth"])  # pyright: ignore[reportReturnType]

    def _track(self, frames: Frames) -> GripperTrack:
        annotator = self.annotators.points
        if not annotator.needs_images:
            return annotator.annotate(frames)
        kept = self.cache.fetch(annotator.version, frames.digest(), lambda: _arrays_of(annotator.annotate(frames)))
        return GripperTrack(**{name: np.asarray(array) for name, array in kept.items()})  # pyright: ignore[reportArgumentType]

    def _codec(
        self, episodes: Sequence[tuple[int, str, int]], out: Path, rejected: Rejections, progress: Progress
    ) -> tuple[DepthCodec, dict[str, Any]]:
        """The codebook: trained on evenly spaced frames of all episodes, or found finished from a killed run."""
        wanted = digest_of([asdict(self.cfg.vqvae), self.annotators.depth.version, [list(e) for e in episodes]])
        note = out / "vqvae" / "training.json"
        if note.is_file():
            found = json.loads(note.read_text(encoding="utf-8"))
            if found["made_for"] == wanted:
                for episode_id, reason in found["rejected"].items():
                    rejected.add(episode_id, reason)
                return DepthCodec.load(out / "vqvae", expected_digest=found["digest"]), found["report"]
        total = sum(length for _, _, length in episodes)
        stride = max(1, total // max(self.cfg.vqvae.frames, 1))
        maps, seen = [], 0
        for done, (index, episode_id, length) in enumerate(episodes):
            progress.update(done, 2 * len(episodes), f"read depth of {episode_id}")
            try:
                frames = self._frames(index)
                if not self.annotators.points.needs_images:  # what was not recorded is told before the codebook is trained
                    self._traces(frames)
                depth_THW = self._depth(frames)
                _check_depth(depth_THW, length, self.annotators.depth.scaling.kind)
                maps.append(np.array(depth_THW[(-seen) % stride :: stride]))
            except ActwrightError as error:
                rejected.add(episode_id, str(error))
            seen += length
        if not maps:
            first = next(iter(rejected.reasons.values()))
            raise DatasetError(f"no episode has depth to learn a codebook from; the first reason: {first}")
        if self.cfg.codebook:
            codec = given_codec(Path(self.cfg.codebook), self.annotators.depth.scaling, self.cfg.vqvae.num_codes)
            given = {"made_for": wanted, "report": {"given": codec.digest}, "rejected": rejected.reasons}
            return codec, self._keep_codec(codec, out, given)
        depth_config, training = _vqvae_settings(self.cfg.vqvae)
        depth_config = DepthConfig(**{**depth_config, "scaling": self.annotators.depth.scaling})
        codec, report = train_vqvae(np.concatenate(maps), depth_config, training, progress.update)
        unit = 1000.0 if depth_config.scaling.kind == "inverse" else 1.0
        trained = {
            "error_mm" if unit > 1 else "error": round(report.error * unit, 3),
            "codes_used": report.codes_used,
            "perplexity": round(report.perplexity, 2),
            "recon": round(report.recon, 8),
            "maps": sum(map(len, maps)),
        }
        return codec, self._keep_codec(codec, out, {"made_for": wanted, "report": trained, "rejected": rejected.reasons})

    def _keep_codec(self, codec: DepthCodec, out: Path, note: dict[str, Any]) -> dict[str, Any]:
        """Write the codebook, then the note by which a later attempt knows it; returns the note's report."""
        shutil.rmtree(out / "vqvae", ignore_errors=True)
        codec.save(out / "vqvae")
        _write_json(out / "vqvae" / "training.json", {**note, "digest": codec.digest})
        return note["report"]


def _vqvae_settings(cfg: VqvaeConfig) -> tuple[dict[str, Any], DepthTraining]:
    sizes = {
        "image_size": cfg.input_size,
        "downsample_ratio": cfg.input_size // 10,
        "num_tokens": cfg.num_codes,
        "codebook_dim": cfg.code_dim,
        "hidden_dim": cfg.hidden,
        "num_resnet_blocks": 1,
        "commitment_cost": cfg.commitment,
        "decay": cfg.ema_decay,
    }
    return sizes, DepthTraining(steps=cfg.steps, batch=cfg.batch, learning_rate=cfg.lr, seed=cfg.seed)


def _check_depth(depth_THW: NDArray[np.number], length: int, kind: str) -> None:
    if depth_THW.ndim != 3 or len(depth_THW) != length:
        raise DatasetError(f"expected a depth map for each of {length} frames, got an array of {depth_THW.shape}")
    bad_T = ~np.isfinite(depth_THW).all(axis=(1, 2))
    if kind == "inverse":
        bad_T |= (depth_THW <= 0).any(axis=(1, 2))
    if bad_T.any():
        raise DatasetError(f"frame {int(np.argmax(bad_T))}: the depth map holds NaN, inf or a distance that is not positive")


def _arrays_of(track: GripperTrack) -> dict[str, NDArray[np.generic]]:
    return {"points_T2": track.points_T2, "visible_T": track.visible_T, "confidence_T": track.confidence_T}


def _write_json(path: Path, document: object) -> None:
    atomic_write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
