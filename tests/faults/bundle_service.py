"""The real gateway over the stub policy, under the identity of a bundle: python -m tests.faults.bundle_service BUNDLE PORT [CANDIDATE].

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
from serving.gateway.shadow.candidate_process import CandidateProcess, ShadowSettings
from serving.gateway.shadow.named_candidate import NamedCandidate
from serving.gateway.shadow.shadow import Shadow

Change = Callable[[Decision], Decision]


def opened(bundle: Path, change: Change | None = None) -> LoadedModel:
    """The stub policy as a bundle names it. change: of every decision, None for none."""
    manifest = read_manifest(bundle)
    contract = PolicyContract.from_json(json.loads((bundle / "contract.json").read_text()))
    policy = StubPolicy(contract=contract, model_version=manifest.model_version, service_s=0.01, change=change or (lambda one: one))
    return LoadedModel(policy=policy, contract=contract, model_version=manifest.model_version, bundle_digest=manifest.digest)


def main(bundle: Path, port: int, candidate: Path | None = None, change: Change | None = None) -> None:
    """Serve it. candidate: the file that names who answers in its shadow, a process of `tests.faults.bundle_candidate`."""
    loaded, settings = opened(bundle, change), ShadowSettings()
    gateway = Gateway(lambda: loaded, GatewayLimits(warm_up_s=5.0))

    def shadow_of(named: str) -> Shadow:
        process = CandidateProcess([sys.executable, "-m", "tests.faults.bundle_candidate", named], settings)
        return Shadow(process, lambda: gateway.model if gateway.is_ready else None, gateway.metrics, settings)

    shadow = NamedCandidate(candidate, shadow_of) if candidate else None
    config = uvicorn.Config(create_app(gateway, shadow=shadow), port=port, log_level="critical", **SOCKET_OPTIONS)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
