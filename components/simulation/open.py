"""Open the simulator that a configuration names."""

from __future__ import annotations

import importlib
from dataclasses import asdict

from components.config.data_config import CollectConfig
from components.config.simulators import simulator_source
from components.simulation.interface import FreeCamera, OpenSimulator, Simulator
from model_core.spec.errors import SimulatorError


def open_simulator(cfg: CollectConfig) -> Simulator:
    """The simulator that `cfg` names, with its camera placed and room to settle after a success at the horizon's end.

    Raises `SimulatorError` when its class cannot be imported.
    """
    source = simulator_source(cfg.simulator)
    module_name, _, class_name = source.partition(":")
    try:
        factory: OpenSimulator = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SimulatorError(f"no simulator {source!r} ({error}); expected 'package.module:Class' that can be imported here") from error
    camera = FreeCamera(**asdict(cfg.camera), width=cfg.image_size, height=cfg.image_size, max_depth_m=cfg.max_depth_m)
    return factory(
        sim_steps_per_action=cfg.sim_steps_per_action,
        horizon_sim_steps=cfg.horizon_sim_steps + cfg.settle_steps * cfg.sim_steps_per_action,
        cameras=(camera,),
        instructions=cfg.instructions,
    )
