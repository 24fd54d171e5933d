"""Demonstrations: scripted experts under action noise and random perturbations, written as a LeRobot v3.0 data set.

The perturbations show how to recover from errors (noise-injected demonstrations, DART): the executed action is the expert's plus
correlated noise plus short random pushes; the label is the expert's own action in the state that resulted. An attempt that does not
succeed is dropped and counted.

Each attempt is one file, renamed into place when it is whole; a killed run loses at most those in flight. The
data set is packed from the files in a fixed order, so its bytes do not depend on the number of workers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from components.adapters.worker_pool import worker_pool
from components.artifacts.files import dataset_digest
from components.config.data_config import CollectConfig, ValidateConfig
from components.config.records import Progress
from components.data.action_dims import gripper_mask
from components.data.attempts import Attempt, Perturbation
from components.data.inspection.rules import inspect_episode
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.simulation.interface import AlreadySolvedError, Simulator
from components.simulation.open import open_simulator
from model_core.spec.documents import identity_document
from model_core.spec.episode import Episode, Provenance
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write
from model_core.spec.protocol.wire import decode_episode, encode_episode

logger = logging.getLogger(__name__)
CELL = "demonstrations"
_EPISODES = "scratch/episodes"  # of a step's folder
BATCH = 8  # attempts a worker does before it reports: changing the task costs it 0.4 s


def collect(cfg: CollectConfig, out: Path, progress: Progress, *, thresholds: ValidateConfig | None = None) -> dict[str, Any]:
    """Record `cfg.episodes_per_task` attempts of each task and write those that succeeded to out/dataset.

    `out` may hold the work of an earlier, killed call: finished attempts are kept. thresholds: of the inspection (default: those of
    `ValidateConfig`). Raises `SimulatorError` when nothing
    can be simulated or drawn, `JobError` when a worker dies, `DatasetError` when no attempt succeeds.
    """
    attempts = [Attempt(task=task, seed=cfg.first_seed + i) for i in range(cfg.episodes_per_task) for task in cfg.tasks]
    scratch = out / _EPISODES
    if not (out / "dataset").exists():
        scratch.mkdir(parents=True, exist_ok=True)
        _record_all(cfg, attempts, scratch, progress)
    rejected = _pack(cfg, thresholds or ValidateConfig(), attempts, out, progress)
    return _record(cfg, attempts, scratch, out, rejected)


def demonstrate(cfg: CollectConfig, sim: Simulator, attempt: Attempt) -> Episode:
    """One attempt as an episode, successful or not. After a success the expert continues unpushed for `settle_steps` steps."""
    sim.reset(attempt.task, attempt.seed, render=False)
    perturbation = Perturbation(cfg, attempt, gripper_mask(sim.embodiment))
    rows: list[dict[str, Any]] = []
    success, settled, limit = False, 0, -(-cfg.horizon_sim_steps // cfg.sim_steps_per_action)
    while settled < cfg.settle_steps if success else len(rows) < limit:
        observation, action_A = sim.observe(), sim.expert_action_A()
        executed_A = action_A if success else perturbation.apply(action_A)
        rows.append(
            {
                "images": observation.images,
                "depth": sim.depth_m(),
                "proprio": observation.proprio_P,
                "tcp": sim.tcp_3(),
                "action": action_A,
                "executed": executed_A,
            }
        )
        settled += success
        success = sim.step(executed_A).success
    cameras = [c.name for c in sim.embodiment.cameras]
    return replace(
        _nothing(cfg, sim, attempt),
        success=success,
        images={name: np.stack([r["images"][name] for r in rows]) for name in cameras},
        depth_m={name: np.stack([r["depth"][name] for r in rows]) for name in rows[0]["depth"]},
        proprio_TP=np.stack([r["proprio"] for r in rows]),
        actions_TA=np.stack([r["action"] for r in rows]),
        executed_TA=np.stack([r["executed"] for r in rows]),
        timestamps_T=np.arange(len(rows)) / sim.embodiment.control_hz,
        tcp_T3=np.stack([r["tcp"] for r in rows]),
    )


def _nothing(cfg: CollectConfig, sim: Simulator, attempt: Attempt) -> Episode:
    """An attempt without frames: only that it was made is remembered."""
    return Episode(
        episode_id=attempt.episode_id,
        embodiment=sim.embodiment.name,
        task=attempt.task,
        instruction=sim.instruction(attempt.task),
        success=False,
        provenance=Provenance(
            producer=f"expert:{cfg.simulator}", cell=CELL, seed=attempt.seed, versions=dict(sim.versions), render=dict(sim.render_flags)
        ),
        images={},
        depth_m={},
        geometry=sim.geometry(),
        proprio_TP=np.zeros((0, len(sim.embodiment.proprio)), np.float32),
        actions_TA=np.zeros((0, len(sim.embodiment.action)), np.float32),
        executed_TA=np.zeros((0, len(sim.embodiment.action)), np.float32),
        timestamps_T=np.zeros(0),
    )


# --- workers: each has its own process, simulator and renderer -----------------------------------------------------


def _record_all(cfg: CollectConfig, attempts: Sequence[Attempt], scratch: Path, progress: Progress) -> None:
    waiting = [a for a in attempts if not _whole(scratch, a).exists()]
    done, total = len(attempts) - len(waiting), len(attempts)
    progress.update(done, total, "recording demonstrations")
    batches = list(_batches(cfg, waiting))
    if not batches:
        return

    def killed() -> str:
        what = f"collect: a simulator process was killed after {done} of {total} attempts (out of memory?)"
        return f"{what}. Fix: run again, finished attempts are kept"

    with worker_pool(min(cfg.workers, len(batches)), killed) as pool:
        futures = [pool.submit(_record_batch, cfg, batch, scratch) for batch in batches]
        for future in as_completed(futures):
            done += future.result()
            progress.update(done, total, "recording demonstrations")


def _batches(cfg: CollectConfig, waiting: Sequence[Attempt]) -> Iterator[list[Attempt]]:
    for start in range(0, len(waiting), BATCH * len(cfg.tasks)):
        part = waiting[start : start + BATCH * len(cfg.tasks)]
        for task in cfg.tasks:
            if mine := [a for a in part if a.task == task]:
                yield mine


_SIMULATORS: dict[str, Simulator] = {}  # of this worker process: making one costs a second


def _record_batch(cfg: CollectConfig, attempts: Sequence[Attempt], scratch: Path) -> int:
    key = repr(cfg)
    if key not in _SIMULATORS:
        _SIMULATORS[key] = open_simulator(cfg)
    sim = _SIMULATORS[key]
    for attempt in attempts:
        try:
            episode = demonstrate(cfg, sim, attempt)
        except AlreadySolvedError as error:  # nothing was demonstrated
            logger.warning("collect.rejected episode=%s reason=%s", attempt.episode_id, error)
            episode = _nothing(cfg, sim, attempt)
        if not episode.success and not cfg.keep_failures:
            episode = _nothing(cfg, sim, attempt)
        atomic_write(_whole(scratch, attempt), encode_episode(episode), durable=False)
    return len(attempts)


def _whole(scratch: Path, attempt: Attempt) -> Path:
    return scratch / f"{attempt.episode_id}.episode"


# --- packing ---------------------------------------------------------------------------------------------------------


def _pack(cfg: CollectConfig, thresholds: ValidateConfig, attempts: Sequence[Attempt], out: Path, progress: Progress) -> dict[str, str]:
    """Write out/dataset unless it is there; returns the episodes that the inline check refused, with the reason."""
    notes = out / "rejected.json"
    if (out / "dataset").exists():
        return json.loads(notes.read_text(encoding="utf-8"))
    sim = open_simulator(cfg)
    rejected: dict[str, str] = {}
    document = {"collect": {**identity_document(cfg)}}
    try:
        with DatasetWriter(out / "dataset", sim.embodiment, notes=document) as writer:
            for number, attempt in enumerate(attempts):
                episode = decode_episode(_whole(out / _EPISODES, attempt).read_bytes())
                progress.update(number + 1, len(attempts), "packing the data set")
                if len(episode) == 0:
                    continue
                findings = inspect_episode(episode, sim.embodiment, thresholds)
                if findings:
                    rejected[episode.episode_id] = "; ".join(f.reason for f in findings)
                    logger.warning("collect.rejected episode=%s reason=%s", episode.episode_id, rejected[episode.episode_id])
                    continue
                writer.add(episode)
            notes.write_text(json.dumps(rejected, indent=1, sort_keys=True), encoding="utf-8")
    except DatasetError as error:
        raise DatasetError(
            f"collect: {error}. {len(attempts)} attempts were made; is the horizon too short or the noise too strong?"
        ) from error
    return rejected


def _record(cfg: CollectConfig, attempts: Sequence[Attempt], scratch: Path, out: Path, rejected: Mapping[str, str]) -> dict[str, Any]:
    reader = DatasetReader(out / "dataset")
    kept = {task: sum(row.task == task for row in reader.rows) for task in cfg.tasks}
    refused = {task: sum(e.startswith(f"{task}-") for e in rejected) for task in cfg.tasks}
    return {
        "version": dataset_digest(out / "dataset"),
        "episodes": len(reader),
        "frames": reader.frames,
        "attempts": len(attempts),
        "failed": len(attempts) - len(reader) - len(rejected),
        "rejected": dict(rejected),
        "per_task": {
            t: {"kept": kept[t], "failed": cfg.episodes_per_task - kept[t] - refused[t], "rejected": refused[t]} for t in cfg.tasks
        },
        "instructions": list(reader.instructions),
    }
