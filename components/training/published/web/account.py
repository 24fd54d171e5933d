"""The account of the web sources of a training: which rows its steps drew, and which they could not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from components.config.published.training import WEB
from components.config.train_config import TrainConfig
from components.data.accounting.tally import Tally
from components.data.frozen_members import open_frozen
from components.training.plan import batch_indices
from components.training.published.drawing import drawing_pairs
from components.training.published.shapes import network_shape
from components.training.published.web.examples import web_processor
from components.training.published.web.mixture import WebMixture


def web_account(config: TrainConfig, frozen: Path) -> list[dict[str, Any]]:
    """Of each source "web:<name>" the rows that were drawn, held out, never drawn or too long, and those that its listing set aside, with
    reasons. A row counts as a frame; there are no episodes."""
    if not config.published.web:
        return []
    robots, shape = len(drawing_pairs(open_frozen(frozen), config.published.groups)), network_shape(config)
    mixture = WebMixture(config, shape, web_processor(shape.processor), first=0, robot_draws=robots)
    drawn = _drawn(config, mixture, robots)
    tally, first = Tally("train"), 0
    for examples, held_out, pairs in zip(mixture.train, mixture.held_out, mixture.listed, strict=True):
        name, end = f"{WEB}:{examples.source.name}", first + len(examples)
        kept = int(np.count_nonzero((drawn >= first) & (drawn < end)))
        tally.keep(name, kept, 0)
        tally.drop(name, "held out for validation", len(held_out), 0)
        tally.drop(name, "drawn by no step", len(examples) - kept, 0)
        tally.drop(name, f"longer than {config.published.max_tokens} tokens", examples.too_long + held_out.too_long, 0)
        for reason, count in pairs.listing.set_aside.items():
            tally.drop(name, reason, count, 0)
        first = end
    return tally.rows()


def _drawn(config: TrainConfig, mixture: WebMixture, robots: int) -> np.ndarray:
    """The number of every row that some step draws, each once."""
    size = robots + len(mixture.places_M2)
    whole, rest = divmod(config.steps * config.global_batch, size)
    found = [mixture.rows(mixture.places_M2, np.full(len(mixture.places_M2), epoch)) for epoch in range(whole)]
    last = batch_indices(config.seed, whole, size, size)[:rest]
    places_B2 = mixture.places_M2[last[last >= robots] - robots]
    return np.unique(np.concatenate([*found, mixture.rows(places_B2, np.full(len(places_B2), whole))]))
