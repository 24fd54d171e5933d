"""Where the time of one decision goes, as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.evaluation.decoding.peer_prompt import PROSE, STAGES


def draw_split(document: Mapping[str, Any], path: Path) -> Path:
    """Where the time of one decision goes, before (generate) and after (ours), as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    split = {"generate": document["split_ms"]["before"], "Actwright": document["split_ms"]["after"]}
    shown = [stage for stage in (*STAGES, PROSE) if any(stage in stages for stages in split.values())]
    colors: dict[str, str] = dict(zip((*STAGES, PROSE), ("#64748b", "#7c3aed", "#0d9488", "#db2777", "#d97706", "#94a3b8"), strict=True))
    figure, axes = plt.subplots(figsize=(9, 2.9), dpi=110)
    for row, stages in enumerate(split.values()):
        left = 0.0
        for stage in shown:
            width = stages.get(stage, 0.0)
            axes.barh(row, width, left=left, color=colors[stage], label=stage if row == 0 else None, height=0.6)
            left += width
        axes.text(left * 1.0 + max(map(_total, split.values())) * 0.01, row, f"{left:.0f} ms", va="center", fontsize=10)
    axes.set_yticks(range(len(split)), list(split))
    axes.invert_yaxis()
    axes.set_xlim(0, max(map(_total, split.values())) * 1.12)
    axes.set_xlabel("median milliseconds of one decision, by what is being decoded")
    where = document["machine"]
    axes.set_title(
        f"One decision with full reasoning, same tokens: {document['speedup_over_generate']:.1f}x"
        f"   ({where['device']}, {where['threads']} thread{'s' if where['threads'] != 1 else ''}, {where['dtype']})",
        fontsize=10,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=len(shown), loc="lower right", frameon=False, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path


def _total(stages: Mapping[str, float]) -> float:
    return sum(stages.values())
