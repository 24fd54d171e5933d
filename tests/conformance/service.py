"""The real gateway, as a process, over a policy that says who asked: row k of a chunk is the state that was sent, plus k / 1024.

python -m tests.conformance.service --body openpi --port 0      prints {"port": ...} when it listens
With --checkpoint FOLDER --log FILE a real network answers in its place, and writes down every decision (`libero_policy.Noted`).
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import uvicorn

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, PolicyContract, ReasoningSpec, VectorSpec
from model_core.spec.stats import UnnormStats
from model_core.spec.types import ActionChunk, Decision, Observation, Policy
from serving.gateway.app import create_app
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.sessions.gateway import Gateway, LoadedModel

ROWS = 8
HZ = 20.0


@dataclass(frozen=True, slots=True)
class Body:
    """The shapes that one public client speaks: picture names as it sends them, size, state and action widths."""

    cameras: tuple[str, ...]
    size: int
    state: int
    action: int


BODIES = {
    "openpi": Body(("observation/image", "observation/wrist_image"), 224, 8, 7),
    "vla-eval": Body(("agentview", "wrist"), 256, 8, 7),
    "yam": Body(("top_cam", "left_cam", "right_cam"), 224, 14, 14),
}


def contract_of(name: str) -> PolicyContract:
    """The contract of a body; its cameras have names of our own where the client's are no identifiers."""
    body = BODIES[name]
    cameras = tuple(CameraSpec(name=camera.rpartition("/")[2], width=body.size, height=body.size) for camera in body.cameras)

    def dims(count: int) -> tuple[DimSpec, ...]:
        return tuple(DimSpec(name=f"d{i}", unit="1", low=-100.0, high=100.0) for i in range(count))

    return PolicyContract(
        embodiment=EmbodimentSpec(
            name=name,
            cameras=cameras,
            proprio=VectorSpec(dims=dims(body.state)),
            action=VectorSpec(dims=dims(body.action), mode="absolute"),
            control_hz=HZ,
            gripper_dim=f"d{body.action - 1}",
            gripper_open=1.0,
            hold=(None,) * body.action,
        ),
        stats=UnnormStats(q01=(-100.0,) * body.action, q99=(100.0,) * body.action, mask=(True,) * body.action),
        reasoning=ReasoningSpec(trace_camera=cameras[0].name),
        chunk_length=ROWS,
        execute_horizon=ROWS // 2,
    )


@dataclass(frozen=True, slots=True)
class StatePolicy:
    """Answers with the state that it was shown."""

    contract: PolicyContract

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        width = len(self.contract.embodiment.action)
        rows_K1 = np.arange(ROWS, dtype=np.float32)[:, None] / 1024
        actions_KA = (observation.proprio_P[None, :width] + rows_K1).astype(np.float32)
        return Decision(contract_id=self.contract.contract_id, chunk=ActionChunk(actions_KA=actions_KA, control_hz=HZ))

    def decide_many(self, observations: Sequence[Observation]) -> list[Decision]:
        """Answer several."""
        return [self.decide(observation) for observation in observations]


def _opened(checkpoint: Path, log: Path) -> tuple[Policy, PolicyContract]:
    from model_core.contracts import read_contracts
    from tests.conformance.libero_policy import Noted

    (contract,) = read_contracts(checkpoint).values()
    return Noted(checkpoint, log), contract


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", choices=sorted(BODIES), required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    policy, contract = (
        _opened(args.checkpoint, args.log) if args.checkpoint else (StatePolicy(contract_of(args.body)), contract_of(args.body))
    )
    gateway = Gateway(lambda: LoadedModel(policy=policy, contract=contract, model_version="conformance/1"))
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", args.port)) as listener:
        maps = Path(folder) / "dialects.json"
        cameras = {camera: camera.rpartition("/")[2] for camera in BODIES[args.body].cameras}
        maps.write_text(json.dumps({"openpi": {"cameras": cameras}} if args.body == "openpi" else {}))
        app = create_app(gateway, field_maps=maps)
        config = uvicorn.Config(app, log_level="warning", **SOCKET_OPTIONS)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)  # noqa: T201
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
