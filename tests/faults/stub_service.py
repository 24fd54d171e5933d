"""The real gateway over the stub policy as a process of its own, so that it can be frozen, killed and measured.

python -m tests.faults.stub_service --port 0 --service-ms 20        prints {"port": ...} when it listens
with stub_process(service_ms=20) as service: service.url, service.pid, service.rss_mib()
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class StubProcess:
    """A running service."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/session"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def rss_mib(self) -> float:
        return rss_mib(self.pid)

    def get(self, path: str, timeout_s: float = 5.0) -> bytes:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=timeout_s) as answer:
            return answer.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def stub_process(*, port: int = 0, **options: object) -> Iterator[StubProcess]:
    """Start one, wait until it is ready, end it."""
    argv = [sys.executable, "-m", "tests.faults.stub_service", "--port", str(port)]
    for name, value in options.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the stub service did not start"
        service = StubProcess(process=process, port=int(json.loads(line)["port"]))
        give_up_at = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                service.get("/readyz")
                break
            assert time.monotonic() < give_up_at, "the stub service did not become ready"
            time.sleep(0.02)
        yield service
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--service-ms", type=float, default=0.0)
    parser.add_argument("--per-row-ms", type=float, default=0.0)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--limits", default="{}")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--model-version", default="stub/1")
    args = parser.parse_args()

    import socket

    import uvicorn

    from serving.gateway.app import create_app
    from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
    from serving.gateway.inference.stub_policy import StubPolicy, stub_contract
    from serving.gateway.operations.limits import GatewayLimits
    from serving.gateway.sessions.gateway import Gateway, LoadedModel

    contract = stub_contract(size=args.size)
    policy = StubPolicy(
        contract=contract,
        model_version=args.model_version,
        service_s=args.service_ms / 1e3,
        per_row_s=args.per_row_ms / 1e3,
        blocks=args.blocks,
    )
    limits = GatewayLimits(**{"warm_up_s": 20.0, **json.loads(args.limits)})
    gateway = Gateway(lambda: LoadedModel(policy=policy, contract=contract, model_version=args.model_version), limits)
    listening = socket.create_server(("127.0.0.1", args.port), backlog=512)
    sys.stdout.write(json.dumps({"port": listening.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    config = uvicorn.Config(create_app(gateway), log_level="critical", **SOCKET_OPTIONS)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
