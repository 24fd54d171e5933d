"""What is measured of a network in training on held-out samples: the loss of each kind of example, and the error of whole answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.config.published.training import PublishedTraining
from components.config.train_config import TrainConfig
from components.training.published.batches import make_batch
from components.training.published.examples import ExampleMaker
from components.training.published.kinds import FORMS, kind_weights
from components.training.published.open_loop import open_loop_error
from model_core.tokenization.published.grammar import Style

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.network.model import MolmoAct

LossOf = Callable[["MolmoAct", Any], tuple["Tensor", Mapping[str, "Tensor"]]]


def validation_values(module: MolmoAct, maker: ExampleMaker, config: TrainConfig, loss_of: LossOf) -> dict[str, float]:
    """{"validation_loss": mean over kinds by their weight, "validation_loss/<kind>", "validation_accuracy/<kind>",
    "validation_action_error/<dimension>" in its unit}. Evenly spaced samples; a kind that no held-out sample can be made into is left out.
    """
    published, possible = config.published, maker.possible()
    found: dict[str, float] = {}
    total = weights = 0.0
    for kind, weight in kind_weights(published.groups).items():
        places = spread(np.flatnonzero(possible[kind]), published.validation_samples)
        sums = np.zeros(2)
        tokens = sum(maker.answer_tokens(place, kind) for place in places)
        for begin in range(0, len(places), config.micro_batch):
            examples = [maker.example(place, kind) for place in places[begin : begin + config.micro_batch]]
            _, parts = loss_of(module, make_batch(examples, published, maker.network.tokenizer.special.pad, tokens))
            sums += [float(parts["loss_ce"]), float(parts["accuracy"])]
        if places:
            found |= {f"validation_loss/{kind}": float(sums[0]), f"validation_accuracy/{kind}": float(sums[1])}
            total, weights = total + weight * sums[0], weights + weight
    if weights:
        found["validation_loss"] = float(total / weights)
    answered = spread(np.flatnonzero(possible["action_reasoning"]), published.open_loop_samples)
    if answered and "action_reasoning" in kind_weights(published.groups):
        errors = open_loop_error(module, maker, answered, style=published.style)
        found |= {f"validation_action_error/{name}": value for name, value in errors.items()}
    return found


def joined_values(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The values of several embodiments: means of losses and accuracies over those that have them, "validation_loss/<embodiment>", and
    "validation_action_error/<embodiment>/<dimension>"."""
    error = "validation_action_error/"
    shared = sorted({name for values in found.values() for name in values if not name.startswith(error)})
    means = {name: float(np.mean([values[name] for values in found.values() if name in values])) for name in shared}
    losses = {f"validation_loss/{one}": values["validation_loss"] for one, values in found.items() if "validation_loss" in values}
    errors = {
        f"{error}{one}/{name.removeprefix(error)}": value
        for one, values in found.items()
        for name, value in values.items()
        if name.startswith(error)
    }
    return means | losses | errors


def spread(places_N: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of these places, evenly spaced."""
    if not count or not len(places_N):
        return []
    return places_N[np.linspace(0, len(places_N) - 1, min(count, len(places_N))).astype(np.int64)].tolist()


def language_ids(maker: ExampleMaker, published: PublishedTraining) -> NDArray[np.int64]:
    """Every id that an answer of these kinds can hold, ascending."""
    from model_core.engine.published.grammar import PublishedGrammar

    contract = maker.contract
    found = [np.array([maker.network.tokenizer.special.eos], np.int64)]
    for kind in kind_weights(published.groups):
        grammar = PublishedGrammar(
            maker.network.tokenizer,
            form=FORMS[kind],
            chunk_length=contract.chunk_length,
            action_dims=len(contract.embodiment.action),
            views=maker.views,
            style=Style(published.style),
        )
        found += list(grammar.groups)
    return np.unique(np.concatenate(found))
