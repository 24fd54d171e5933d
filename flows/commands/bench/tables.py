"""What a person reads after a measurement: tables on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from components.evaluation.decoding.equivalence import DecodingEquivalence


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


def show_certificate(made: DecodingEquivalence) -> None:
    """The certificate for a person, on stderr."""
    console = Console(stderr=True, highlight=False)
    console.print(f"{made.decisions} decisions, {made.tokens} tokens, {made.machine['dtype']}: {made.flips} flips")
    console.print("forwards a decision: " + ", ".join(f"{way} {count:.1f}" for way, count in made.forwards.items()))
    console.print(
        f"guarded: {dict(made.guards)}; equal in every bit from {made.tile} rows on" if made.bound == 0 else f"guarded: {dict(made.guards)}"
    )
    for flip in made.flipped:
        console.print(f"  flip: decision {flip.decision} ({flip.way}), token {flip.position}: plain {flip.plain}, got {flip.got}")
