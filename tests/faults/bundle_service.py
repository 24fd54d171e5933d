"""The real gateway over the stub policy, under the identity of a bundle: python -m tests.faults.bundle_service BUNDLE PORT.

For the agent's tests with real cells: what a release is called is read from its files, what it answers needs no torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from model_core.bundle import read_manifest
from model_core.spec.contract import PolicyContract
from model_core.spec.types import Decision
from serving.gateway.app import create_app
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel


def main(bundle: Path, port: int, change: Callable[[Decision], Decision] | None = None) -> None:
    """change: of every decision, None for none."""
    manifest = read_manifest(bundle)
    contract = PolicyContract.from_json(json.loads((bundle / "contract.json").read_text()))
    policy = StubPolicy(contract=contract, model_version=manifest.model_version, service_s=0.01, change=change or (lambda one: one))
    loaded = LoadedModel(policy=policy, contract=contract, model_version=manifest.model_version, bundle_digest=manifest.digest)
    config = uvicorn.Config(
        create_app(Gateway(lambda: loaded, GatewayLimits(warm_up_s=5.0))), port=port, log_level="critical", **SOCKET_OPTIONS
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
