"""What `actwright bench` and `actwright certify` do: find a checkpoint and a recording, measure or compare, show and keep the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.pipeline.recipes import get_recipe
from flows.platform.wiring import open_house
from model_core.spec.errors import NotReady, SpecError

if TYPE_CHECKING:
    from components.evaluation.decoding.equivalence import Certificate
    from components.evaluation.observation_log import Recording

REMEMBERED = 1_000  # decisions of other sessions that the memory of drafts begins with
_EVERY_S = 5.0


class Teller:
    """`components.config.records.Progress` on stderr: a line now and then, or nothing."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._console = None if quiet else Console(stderr=True, highlight=False)
        self._title, self._said = title, 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """See `Progress.update`."""
        if self._console is not None and time.monotonic() - self._said > _EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{self._title}: {done}/{total} {message}".rstrip())


def chosen_checkpoint(named: Path | None) -> Path:
    """The folder that was named, or the newest trained one of the store. Raises `NotReady` before there is one."""
    if named is not None:
        missing = [name for name in ("config.json", "contract.json") if not (named / name).is_file()]
        if missing:
            raise SpecError(
                f"no checkpoint at {named}: it has no {' and no '.join(missing)}; "
                "name a folder with model.safetensors, config.json and contract.json"
            )
        return named
    trained = open_house().store.steps("train")
    if not trained:
        raise NotReady("no trained checkpoint in the store yet; name a checkpoint folder, or train one with `actwright train`")
    return trained[-1].path / "checkpoint"


def chosen_recording(named: Path | None, checkpoint: Path, decisions: int, recipe: str, teller: Teller) -> tuple[Recording, Path]:
    """The recording that was named, or one of this checkpoint's own decisions, kept under the home folder for the next time."""
    from components.evaluation.evaluate import checkpoint_digest
    from components.evaluation.observation_log import load_recording

    if named is not None:
        return load_recording(named), named
    path = open_house().settings.home.resolve() / "recordings" / f"{checkpoint_digest(checkpoint)[:12]}-{decisions}.npz"
    if not path.is_file():
        record(path, checkpoint, decisions, recipe, teller)
    return load_recording(path), path


def record(path: Path, checkpoint: Path, decisions: int, recipe: str, teller: Teller) -> Mapping[str, Any]:
    """Let a checkpoint act on the tasks of a recipe, on fresh seeds, and keep what it saw."""
    house, chosen = open_house(), get_recipe(recipe)
    from components.evaluation.evaluate import checkpoint_digest
    from components.evaluation.observation_log import record as drive

    house.settings.home.mkdir(parents=True, exist_ok=True)
    cfg = replace(chosen.evaluate, batch=min(chosen.evaluate.batch, max(1, decisions // 8)))
    made = drive(checkpoint, decisions, teller, scenes=chosen.collect, cfg=cfg, digest=checkpoint_digest(checkpoint))
    made.save(path)
    return {"recording": str(path), "decisions": len(made), "sessions": len(made.sessions()), "tasks": list(chosen.collect.tasks)}


def bench_decode(
    checkpoint: Path,
    recording: tuple[Recording, Path],
    teller: Teller,
    *,
    decisions: int,
    peer_decisions: int,
    dtype: str,
    threads: int,
    sessions: int,
    out: Path,
    picture: Path,
) -> dict[str, Any]:
    """Measure, write the result and the picture; returns the result's document."""
    from components.evaluation.decoding.benchmark import bench_decode as measure
    from components.evaluation.decoding.benchmark import write_result
    from components.evaluation.decoding.time_plot import draw_split
    from components.evaluation.evaluate import checkpoint_digest
    from model_core.checkpoint import load_checkpoint

    document = measure(
        load_checkpoint(checkpoint),
        recording[0],
        teller,
        decisions=decisions,
        peer_decisions=peer_decisions,
        dtype=dtype,
        threads=threads,
        sessions=sessions,
        remembered=REMEMBERED,
        digest=checkpoint_digest(checkpoint),
    )
    write_result(document, out)
    draw_split(document, picture)
    return document


def certify(
    checkpoint: Path,
    recording: tuple[Recording, Path],
    teller: Teller,
    *,
    decisions: int,
    dtype: str,
    threads: int,
    sessions: int,
    faithful: bool,
    out: Path,
) -> Certificate:
    """Compare and write the certificate."""
    from components.evaluation.decoding.equivalence import certify as compare
    from components.evaluation.evaluate import checkpoint_digest
    from model_core.checkpoint import load_checkpoint

    made = compare(
        load_checkpoint(checkpoint),
        recording[0],
        teller,
        decisions=decisions,
        dtype=dtype,
        threads=threads,
        sessions=sessions,
        constrained=not faithful,
        digest=checkpoint_digest(checkpoint),
    )
    made.write(out)
    return made


def show_bench(document: Mapping[str, Any]) -> None:
    """The table for a person, on stderr."""
    where, many = document["machine"], document["many_sessions"]
    table = Table(title="one decision with full reasoning", title_justify="left")
    for column in ("side", "median ms", "p95 ms", "times generate", "forwards", "depth", "trace", "actions", "same tokens"):
        table.add_column(column, justify="left" if column == "side" else "right", no_wrap=True)
    for row in document["rows"]:
        fields = [f"{row['acceptance'][name]:.2f}" if name in row["acceptance"] else "" for name in ("depth", "trace", "action")]
        times = [f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['speedup_over_generate']:.2f}x", f"{row['forwards']:.1f}"]
        table.add_row(row["side"], *times, *fields, f"{row['decisions_equal']}/{row['decisions_compared']}")
    console = Console(stderr=True, highlight=False, width=max(132, Console(stderr=True).width))
    console.print(table)
    console.print(
        f"depth, trace, actions: of the guesses that were reached, the share that stood. {document['decisions']} decisions, "
        f"{document['tokens_per_decision']:.0f} tokens each; {document['flips']} flips, {document['guarded']} guarded."
    )
    for level, cost in document["levels"].items():
        console.print(
            f"level {level:13} {cost['p50_ms']:6.1f} ms, p95 {cost['p95_ms']:6.1f}, {cost['forwards']:5.1f} forwards, "
            f"served as asked {cost['served']:.0%}; drafts of the session alone"
        )
    console.print(
        f"{many['sessions']} sessions in one round: {many['chunks_per_s_together']:.1f} chunks/s, one at a time "
        f"{many['chunks_per_s_one_at_a_time']:.1f} ({many['ratio']:.2f}x), tokens {'identical' if many['tokens_equal'] else 'DIFFERENT'}"
    )
    console.print(f"{where['device']}, {where['threads']} thread(s), {where['dtype']}, {where['date']}, load {where['load_average']}")


def show_certificate(made: Certificate) -> None:
    """The certificate for a person, on stderr."""
    console = Console(stderr=True, highlight=False)
    console.print(f"{made.decisions} decisions, {made.tokens} tokens, {made.machine['dtype']}: {made.flips} flips")
    console.print("forwards a decision: " + ", ".join(f"{way} {count:.1f}" for way, count in made.forwards.items()))
    console.print(
        f"guarded: {dict(made.guards)}; equal in every bit from {made.tile} rows on" if made.bound == 0 else f"guarded: {dict(made.guards)}"
    )
    for flip in made.flipped:
        console.print(f"  flip: decision {flip.decision} ({flip.way}), token {flip.position}: plain {flip.plain}, got {flip.got}")
