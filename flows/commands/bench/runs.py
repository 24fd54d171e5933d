"""What `actwright bench` and `actwright certify` do: find a checkpoint and a recording, measure or compare, show and keep the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.config.paths import REPOSITORY
from flows.pipeline.recipes import get_recipe
from flows.platform.wiring import open_platform
from model_core.spec.errors import NotReady, SpecError

if TYPE_CHECKING:
    from components.evaluation.decoding.equivalence import DecodingEquivalence
    from components.evaluation.observation_recording import Recording
    from flows.commands.bench.options import BenchOptions, CertifyOptions

REMEMBERED = 1_000  # decisions of other sessions that the draft cache begins with
_EVERY_S = 5.0


class PlainProgress:
    """`components.config.records.Progress` on stderr: a line now and then, or nothing."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._console = None if quiet else Console(stderr=True, highlight=False)
        self._title, self._said = title, 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """See `Progress.update`."""
        if self._console is not None and time.monotonic() - self._said > _EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{self._title}: {done}/{total} {message}".rstrip())


def chosen_checkpoint(named: Path | None, embodiment: str = "") -> Path:
    """The folder that was named, or the newest trained one of the store; of one that acts for several embodiments the part of the one that
    is named, kept under the home folder. Raises `NotReady` before there is one, `CheckpointError` where one of several must be named.
    """
    from components.artifacts.step_manifest import checkpoint_digest
    from model_core.contracts import chosen_contract, read_contracts

    folder = _whole_checkpoint(named)
    contracts = read_contracts(folder)
    name = chosen_contract(contracts, embodiment, folder).embodiment.name
    if len(contracts) == 1:
        return folder
    part = open_platform().settings.home.resolve() / "parts" / f"{checkpoint_digest(folder)[:12]}-{name}"
    if part.is_dir():
        return part
    from model_core.checkpoint import write_part

    return write_part(folder, name, part)


def _whole_checkpoint(named: Path | None) -> Path:
    if named is not None:
        missing = [name for name in ("config.json", "contract.json") if not (named / name).is_file()]
        if missing:
            raise SpecError(
                f"no checkpoint at {named}: it has no {' and no '.join(missing)}; "
                "name a folder with model.safetensors, config.json and contract.json"
            )
        return named
    trained = open_platform().store.steps("train")
    if not trained:
        raise NotReady("no trained checkpoint in the store yet; name a checkpoint folder, or train one with `actwright train`")
    return trained[-1].path / "checkpoint"


def chosen_recording(named: Path | None, checkpoint: Path, decisions: int, recipe: str, progress: PlainProgress) -> Recording:
    """The recording that was named, or one of this checkpoint's own decisions, kept under the home folder for the next time."""
    from components.artifacts.step_manifest import checkpoint_digest
    from components.evaluation.observation_recording import load_recording

    if named is not None:
        return load_recording(named)
    path = open_platform().settings.home.resolve() / "recordings" / f"{checkpoint_digest(checkpoint)[:12]}-{decisions}.npz"
    if not path.is_file():
        record(path, checkpoint, decisions, recipe, progress)
    return load_recording(path)


def record(path: Path, checkpoint: Path, decisions: int, recipe: str, progress: PlainProgress) -> Mapping[str, Any]:
    """Let a checkpoint act on the tasks of a recipe, on fresh seeds, and keep what it saw."""
    platform, chosen = open_platform(), get_recipe(recipe)
    from components.artifacts.step_manifest import checkpoint_digest
    from components.evaluation.observation_log import record as drive

    platform.settings.home.mkdir(parents=True, exist_ok=True)
    cfg = replace(chosen.evaluate, batch=min(chosen.evaluate.batch, max(1, decisions // 8)))
    made = drive(checkpoint, decisions, progress, collect=chosen.collect, cfg=cfg, digest=checkpoint_digest(checkpoint))
    made.save(path)
    return {"recording": str(path), "decisions": len(made), "sessions": len(made.sessions()), "tasks": list(chosen.collect.tasks)}


def bench_decode(checkpoint: Path, recording: Recording, options: BenchOptions, progress: PlainProgress) -> dict[str, Any]:
    """Measure, write the result and the plot; returns the result's document."""
    from components.artifacts.step_manifest import checkpoint_digest
    from components.evaluation.decoding.benchmark import DecodeBenchmark
    from components.evaluation.decoding.benchmark import bench_decode as measure
    from components.evaluation.decoding.benchmark_document import write_result
    from components.evaluation.decoding.time_plot import draw_split
    from model_core.checkpoint import load_checkpoint

    document = measure(
        load_checkpoint(checkpoint),
        recording,
        progress,
        DecodeBenchmark(
            decisions=options.decisions,
            peer_decisions=options.peer_decisions,
            dtype=options.dtype,
            threads=options.threads,
            sessions=options.sessions,
            remembered=REMEMBERED,
        ),
        digest=checkpoint_digest(checkpoint),
    )
    write_result(document, options.out or REPOSITORY / "benchmarks" / "results" / "decode.json")
    draw_split(document, options.picture or REPOSITORY / "docs" / "pictures" / "decision_time.png")
    return document


def certify(checkpoint: Path, recording: Recording, options: CertifyOptions, progress: PlainProgress) -> DecodingEquivalence:
    """Compare every decision and write the certificate."""
    from components.artifacts.step_manifest import checkpoint_digest
    from components.evaluation.decoding.equivalence import EquivalenceOptions
    from components.evaluation.decoding.equivalence import certify as compare
    from model_core.checkpoint import load_checkpoint

    made = compare(
        load_checkpoint(checkpoint),
        recording,
        progress,
        EquivalenceOptions(
            decisions=options.decisions,
            dtype=options.dtype,
            threads=options.threads,
            sessions=options.sessions,
            constrained=not options.faithful,
        ),
        digest=checkpoint_digest(checkpoint),
    )
    made.write(options.target)
    return made
