"""Open the simulator that a configuration names."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import asdict
from typing import Any

from components.config.data_config import CollectConfig
from components.config.simulators import simulator_source
from components.simulation.interface import FreeCamera, OpenSimulator, Simulator
from model_core.spec.errors import SimulatorError


def open_simulator(cfg: CollectConfig) -> Simulator:
    """The simulator that `cfg` names, with its camera placed and room to settle after a success at the horizon's end.

    Raises `SimulatorError` when its class cannot be imported, or takes no cameras of the scene where `cfg` names some.
    """
    source = simulator_source(cfg.simulator)
    module_name, _, class_name = source.partition(":")
    try:
        factory: OpenSimulator = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SimulatorError(f"no simulator {source!r} ({error}); expected 'package.module:Class' that can be imported here") from error
    camera = FreeCamera(**asdict(cfg.camera), width=cfg.image_size, height=cfg.image_size, max_depth_m=cfg.max_depth_m)
    scene = _scene_cameras(factory, cfg)
    return factory(
        sim_steps_per_action=cfg.sim_steps_per_action,
        horizon_sim_steps=cfg.horizon_sim_steps + cfg.settle_steps * cfg.sim_steps_per_action,
        cameras=(camera,),
        instructions=cfg.instructions,
        **scene,
    )


def _scene_cameras(factory: OpenSimulator, cfg: CollectConfig) -> dict[str, Any]:
    """An argument that only those simulators need to take which let a recipe choose among the scene's cameras."""
    if not cfg.scene_cameras:
        return {}
    if "scene_cameras" not in inspect.signature(factory).parameters:
        raise SimulatorError(
            f"collect.scene_cameras: simulator {cfg.simulator!r} offers no choice of them, got {', '.join(cfg.scene_cameras)}. "
            "Fix: --set 'collect.scene_cameras=[]'"
        )
    return {"scene_cameras": cfg.scene_cameras}
