"""A policy drives the real simulator, and what it saw is kept: in order, by session, with the rows executed in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from components.evaluation.decoding.replay import Replay
from components.evaluation.observation_log import record
from components.evaluation.observation_recording import load_recording
from components.simulation.open import open_simulator
from flows.pipeline.recipes import get_recipe
from model_core.checkpoint import load_checkpoint
from model_core.spec.errors import ContractError
from tests.tiny_checkpoint import write_tiny_checkpoint


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@pytest.mark.soak  # short: what is recorded is read by test_decode_bench, a rollout is in test_evaluate
def test_observations_of_a_rollout_are_kept_in_order(tmp_path):
    recipe = get_recipe("miniature")
    collect = replace(recipe.collect, tasks=recipe.collect.tasks[:1], image_size=32)
    sim = open_simulator(collect)
    instruction = sim.instruction(collect.tasks[0])
    contract = write_tiny_checkpoint(tmp_path / "checkpoint", embodiment=sim.embodiment, instructions=(instruction,))
    sim.close()
    cfg = replace(recipe.evaluate, batch=2, workers=1, horizon_sim_steps=48, execute_horizon=4)
    made = record(tmp_path / "checkpoint", 5, Silent(), collect=collect, cfg=cfg, digest="d")
    found = load_recording(made.save(tmp_path / "seen.npz"))
    assert len(found) == 5
    assert found.session_T.tolist() == [0, 0, 0, 1, 1]  # 48 simulator steps of 4 a row, 4 rows a chunk: three decisions an episode
    assert found.consumed_T.tolist() == [0, 4, 4, 0, 4]
    assert found.instructions == (instruction,)
    assert found.images[contract.embodiment.cameras[0].name].shape == (5, 32, 32, 3)
    assert not np.array_equal(*(found.images["front"][index] for index in (0, 3)))  # another seed, another initial state
    assert found.source["checkpoint_digest"] == "d"
    assert [item.follows for item in Replay(load_checkpoint(tmp_path / "checkpoint"), found).items] == [None, 0, 1, None, 3]
    with pytest.raises(ContractError, match="another embodiment"):
        record(tmp_path / "checkpoint", 5, Silent(), collect=replace(collect, image_size=48), cfg=cfg)
