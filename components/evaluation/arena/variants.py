"""The variants of a recipe that an ablation compares: one thing is changed, the budget of training and the cases stay.

The questions are the paper's (MolmoAct, arXiv 2508.07917, sections 3 and 5): what depth tokens, the trace and mid-training contribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from components.config.data_config import NO_LABELS
from components.config.recipe import Recipe
from model_core.spec.errors import SpecError, require

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A recipe under a name. question: what its comparison with the base answers."""

    name: str
    question: str
    recipe: Recipe

    def seeded(self, number: int) -> Recipe:
        """The recipe of the training `number`, counted from 0: its training seed is moved by so many."""
        train = self.recipe.train
        return replace(self.recipe, train=replace(train, seed=train.seed + number))


def variants_of(recipe: Recipe, names: Sequence[str] = (), start: str = "") -> tuple[Variant, ...]:
    """The recipe itself under the name "base", and the variants of these names (none: all that the recipe can have).

    start: folder of a checkpoint for the variant "mid-training", where the recipe starts from none. Raises `SpecError` for a name that is
    unknown or named twice, for a variant that is equal to the base, and for a recipe without trials in closed loop.
    """
    require(
        not recipe.data or bool(recipe.evaluate.suite),
        "an ablation compares trials in closed loop, and this recipe is evaluated on held-out episodes. Fix: set evaluate.suite",
    )
    unknown = sorted(set(names) - set(MAKERS))
    require(not unknown, f"no such variants: {', '.join(unknown)}. Fix: choose among {', '.join(MAKERS)}")
    require(len(set(names)) == len(names), "a variant is named twice. Fix: name each once", got=list(names))
    require(not start or not recipe.train.init_from, "the recipe has a start checkpoint. Fix: leave out --start, or its train.init_from")
    base = Variant(name=BASE, question="the recipe as it is", recipe=recipe)
    found = [base]
    for name in names or MAKERS:
        question, make = MAKERS[name]
        changed = make(recipe, start)
        if changed is not None and changed != recipe:
            found.append(Variant(name=name, question=question, recipe=changed))
        elif names:
            raise SpecError(f"variant {name!r} is the recipe as it is. Fix: {_FIXES.get(name, 'leave it out')}")
    require(len(found) > 1, f"the recipe {recipe.name!r} has nothing to take away. Fix: ablate one that is trained with labels")
    return tuple(found)


def is_trained_as(variant: Recipe, other: Recipe) -> bool:
    """Whether both have one training: only the evaluation and what follows it differ."""
    ours, theirs = variant.to_json(), other.to_json()
    return all(ours[section] == theirs[section] for section in ours.keys() - {"evaluate", "package"})


def _answering(level: Literal["reuse-depth", "trace+action", "action"]) -> Callable[[Recipe, str], Recipe | None]:
    def make(recipe: Recipe, _: str) -> Recipe | None:
        taught = recipe.annotate.levels
        is_less = level in taught and taught.index(level) > taught.index(recipe.evaluate.reasoning)
        return replace(recipe, evaluate=replace(recipe.evaluate, reasoning=level)) if is_less else None

    return make


def _steered(recipe: Recipe, _: str) -> Recipe | None:
    return replace(recipe, evaluate=replace(recipe.evaluate, steering="whole")) if recipe.annotate.is_labelled else None


def _without_depth(recipe: Recipe, _: str) -> Recipe | None:
    return _relabelled(recipe, recipe.annotate.point_annotator, "trace+action") if recipe.annotate.has_depth else None


def _without_labels(recipe: Recipe, _: str) -> Recipe | None:
    return _relabelled(recipe, NO_LABELS, "action") if recipe.annotate.is_labelled else None


def _relabelled(recipe: Recipe, points: str, level: Literal["trace+action", "action"]) -> Recipe:
    return replace(
        recipe,
        annotate=replace(recipe.annotate, depth_annotator=NO_LABELS, point_annotator=points, codebook=""),
        evaluate=replace(recipe.evaluate, reasoning=level),
        package=replace(recipe.package, reasoning=level),
    )


def _other_start(recipe: Recipe, start: str) -> Recipe:
    return replace(recipe, train=replace(recipe.train, init_from="" if recipe.train.init_from else start))


# name -> question, and the changed recipe (None where the recipe has nothing of the kind)
MAKERS: Mapping[str, tuple[str, Callable[[Recipe, str], Recipe | None]]] = {
    "answers-reuse-depth": ("what does it cost to keep the last depth tokens while the model agrees?", _answering("reuse-depth")),
    "answers-trace+action": ("what do depth tokens contribute when the same policy decides without them?", _answering("trace+action")),
    "answers-action": ("what do depth tokens and trace contribute when the same policy decides without them?", _answering("action")),
    "steered": ("what does a drawn trace add to the sentence, for the same policy?", _steered),
    "without-depth": ("what does it cost to train without depth tokens?", _without_depth),
    "without-labels": ("what does it cost to train without depth tokens and trace?", _without_labels),
    "mid-training": ("what does the start checkpoint contribute?", _other_start),
}
_FIXES = {"mid-training": "name the folder of a checkpoint: --start FOLDER"}
