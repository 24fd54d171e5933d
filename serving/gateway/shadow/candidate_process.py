"""The candidate's process as the gateway holds it: started, asked with a deadline, killed when it hangs, started again a few times."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model_core.spec.contract import PolicyContract
from model_core.spec.conversion import compare
from model_core.spec.errors import ContractError, NotReady, WireError
from model_core.spec.protocol.wire import Chunk, Observe, Reject, decode_message, encode_message
from serving.gateway.shadow.frames import receive_frame, send_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSettings:
    """Times in seconds. deadline_s: a later answer counts as late. hung_s: one that takes longer has its process killed.

    load_s: until a process has to be loaded. max_restarts: processes that are started in place of one that hung, died or answered
    something that is no answer. queue: observations that may wait; newer ones push older ones out.
    """

    deadline_s: float = 2.0
    hung_s: float = 30.0
    load_s: float = 300.0
    max_restarts: int = 3
    queue: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateAnswer:
    """What came back. depth: mean distance of the decoded depth maps, where both predicted one. ms: from the question to the answer."""

    reply: Chunk | Reject
    ms: float
    depth: float | None = None


@dataclass(slots=True)
class CandidateProcess:
    """One process at a time, of one thread. command: without its `--fd N`, which is appended."""

    command: Sequence[str]
    settings: ShadowSettings
    contract: PolicyContract | None = None
    model_version: str = ""
    bundle_digest: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _sock: socket.socket | None = None
    _environment: dict[str, str] = field(default_factory=lambda: {**os.environ, "OMP_NUM_THREADS": "1"})

    def start(self, live: PolicyContract) -> None:
        """Start it and wait until it has loaded. Raises NotReady, saying why, or ContractError where its robot is another one."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [*self.command, "--fd", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=self._environment)
        self._sock = ours
        try:
            self._take(json.loads(receive_frame(ours, time.monotonic() + self.settings.load_s)), live)
        except (NotReady, ContractError):
            self.stop()
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self.stop()
            raise NotReady(f"the candidate did not load: {type(error).__name__}: {error}") from error

    def _take(self, about: Any, live: PolicyContract) -> None:
        if "error" in about:
            raise NotReady(str(about["error"]))
        contract = PolicyContract.from_json(about["contract"])
        found = compare(contract, live.embodiment)
        if differences := [*(one.explain() for one in found.refusals), *(one.explain() for one in found.conversions)]:
            raise ContractError(f"the candidate is for another robot: {differences[0]}")
        self.contract, self.model_version, self.bundle_digest = contract, str(about["model_version"]), str(about["bundle_digest"])

    def ask(self, observe: Observe, live: Chunk | Reject) -> CandidateAnswer:
        """Its answer. Raises TimeoutError after `hung_s`, EOFError or OSError when it has died, WireError for what is no answer."""
        assert self._sock is not None
        began = time.monotonic()
        give_up_at = began + self.settings.hung_s
        self._sock.settimeout(self.settings.hung_s)
        send_frame(self._sock, encode_message(observe))
        send_frame(self._sock, encode_message(live))
        reply = decode_message(receive_frame(self._sock, give_up_at))
        apart = _measured(receive_frame(self._sock, give_up_at))
        if not isinstance(reply, Chunk | Reject) or (reply.session_id, reply.seq) != (observe.session_id, observe.seq):
            raise WireError("the candidate answered something else than it was asked")
        return CandidateAnswer(reply=reply, ms=1e3 * (time.monotonic() - began), depth=apart)

    def stop(self) -> None:
        """End it, whatever it does."""
        process, sock, self._process, self._sock = self._process, self._sock, None, None
        if sock is not None:
            sock.close()
        if process is not None:
            process.kill()
            process.wait()


def _measured(frame: bytes) -> float | None:
    try:
        found = json.loads(frame)
        return float(found["depth"]) if "depth" in found else None
    except (ValueError, TypeError, KeyError) as error:
        raise WireError(f"the candidate's measures cannot be read: {error}") from error


def candidate_command(bundle: str) -> list[str]:
    """The command line of a candidate that serves this bundle."""
    return [sys.executable, "-m", "serving.gateway.shadow.candidate", "--bundle", bundle]
