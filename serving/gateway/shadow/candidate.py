"""The candidate's process: `python -m serving.gateway.shadow.candidate --bundle FOLDER --fd N`, started by the gateway alone.

It has one socket, which it inherited, and listens on none: no robot can reach it, and what it answers ends in a comparison. It runs at
the lowest priority that the system has, so that it computes only while no other process wants to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.bundle import CHECKPOINT
from model_core.spec.errors import ActwrightError
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.protocol.wire import Chunk, Observe, decode_message, encode_message
from model_core.spec.types import DecisionRequest
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.inference.golden_probes import failed_golden_probes
from serving.gateway.inference.pending_request import Guidance, PendingResult
from serving.gateway.inference.served_model import LoadedModel
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.sessions.replies import chunk_of, rejection
from serving.gateway.shadow.frames import receive_frame, send_frame
from serving.lifeline import end_with_parent

DepthDistance = Callable[[NDArray[np.integer], NDArray[np.integer]], float]


def main(argv: list[str] | None = None) -> int:
    """Answer until the gateway is gone."""
    parser = argparse.ArgumentParser(prog="python -m serving.gateway.shadow.candidate", description="Answer beside a live policy.")
    parser.add_argument("--bundle", help="folder of the candidate's bundle")
    parser.add_argument("--stub", type=float, metavar="SECONDS", help="answer as the stub policy does, SECONDS per answer")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket")
    args = parser.parse_args(argv)
    yield_to_others()
    with socket.socket(fileno=args.fd) as sock:
        try:
            model, distance = _stub(args.stub) if args.stub is not None else _opened(Path(args.bundle))
        except (ActwrightError, OSError) as error:
            send_frame(sock, json.dumps({"error": str(error)[:1000]}).encode())
            return 1
        with contextlib.suppress(EOFError, ConnectionError):
            serve(sock, model, distance)
    return 0


def yield_to_others() -> None:
    """Take the lowest priority, be the first to end where memory does, and end with the gateway whatever hangs here."""
    os.nice(19)
    with contextlib.suppress(OSError):  # Linux alone has it
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's; its end is ours
    end_with_parent(os.getppid())


def serve(sock: socket.socket, model: LoadedModel, distance: DepthDistance | None) -> None:
    """Say who answers, then answer frame by frame. Raises EOFError when the gateway is gone."""
    policy, identity = as_request_policy(model.policy), model.identity
    about = {"contract": model.contract.to_json(), "model_version": model.model_version, "bundle_digest": model.bundle_digest}
    send_frame(sock, json.dumps(about).encode())
    while True:
        observe, live = decode_message(receive_frame(sock)), decode_message(receive_frame(sock))
        assert isinstance(observe, Observe)
        level = live.level if isinstance(live, Chunk) else observe.level
        request = DecisionRequest(observation=observe.observation, level=level, committed_DA=observe.committed_DA)
        decision = policy.answer([request])[0]
        if decision.refusal is not None:
            send_frame(sock, encode_message(rejection(observe, decision.refusal.code, decision.refusal.reason)))
            send_frame(sock, b"{}")
            continue
        chunk = chunk_of(observe, PendingResult(decision=decision), identity, Guidance(), (), {})
        send_frame(sock, encode_message(chunk))
        codes = None if not isinstance(live, Chunk) else live.depth_codes_G
        apart = {} if distance is None or codes is None or chunk.depth_codes_G is None else {"depth": distance(chunk.depth_codes_G, codes)}
        send_frame(sock, json.dumps(apart).encode())


def _opened(bundle: Path) -> tuple[LoadedModel, DepthDistance | None]:
    """The bundle, after its golden probes were answered; and the distance of depth codes by its own decoder, where it has one."""
    model = open_bundle(bundle)
    import torch

    torch.set_num_threads(1)
    if failed := failed_golden_probes(model.policy, model.contract, model.probes):
        raise ActwrightError(f"the candidate's golden probes are answered otherwise here: {failed[0]}")
    folder = bundle / CHECKPOINT / "vqvae"
    if not folder.is_dir():
        return model, None
    from model_core.tokenization.depth.codec import DepthCodec

    codec = DepthCodec.load(folder)

    def distance(one_G: NDArray[np.integer], other_G: NDArray[np.integer]) -> float:
        one_HW, other_HW = codec.decode(np.stack([one_G, other_G]))
        return float(np.abs(one_HW - other_HW).mean())

    return model, distance


def _stub(seconds: float) -> tuple[LoadedModel, None]:
    policy = StubPolicy(service_s=seconds)
    return LoadedModel(policy=policy, contract=policy.contract, model_version=f"{policy.model_version}-candidate"), None


if __name__ == "__main__":
    sys.exit(main())
