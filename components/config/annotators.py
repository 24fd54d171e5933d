"""Which annotators there are, by kind. A new one costs one module and one entry here, or no entry: a recipe may name its function."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from model_core.spec.errors import SpecError

_FOLDER = "components.data.annotators"

# name -> "module:function", which is called with the recipe's `AnnotateConfig` and gives a `DepthAnnotator` or a `PointAnnotator`
DEPTH_ANNOTATORS: dict[str, str] = {
    "truth": f"{_FOLDER}.simulator_truth:open_depth",
    "depth_anything": f"{_FOLDER}.depth_anything:open_depth",
}
POINT_ANNOTATORS: dict[str, str] = {
    "truth": f"{_FOLDER}.simulator_truth:open_points",
    "pointing": f"{_FOLDER}.pointing:open_points",
    "kinematics": f"{_FOLDER}.kinematics.annotator:open_points",
    "traces": f"{_FOLDER}.stored_traces:open_points",
}
ANNOTATOR_MODULES = tuple(sorted({source.partition(":")[0] for source in (*DEPTH_ANNOTATORS.values(), *POINT_ANNOTATORS.values())}))


def annotator_source(where: str, name: str, known: Mapping[str, str]) -> str:
    """The "module:function" of a registered name, or `name` itself where it is one already. Raises `SpecError` for an unknown name."""
    if name in known:
        return known[name]
    if ":" in name:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"set {where} to one of them, or to a function of your own as 'package.module:function'"
    )
    raise SpecError(f"{where}: expected one of {', '.join(known)}, got {name!r}; {hint}")
