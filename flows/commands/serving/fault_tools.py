"""`actwright fault-server` and `fault-proxy`: the fault injection tools, run in the foreground."""

from __future__ import annotations

import signal
import subprocess
import sys

import typer


def fault_server(context: typer.Context) -> None:
    """Serve a policy that fails on purpose, seeded and scripted, to test any client: late, silent, wrong or lost answers.

    Everything after the name goes to `python -m serving.fault_injection server`; its own --help lists every fault.

    Example: actwright fault-server --help
    Example: actwright fault-server --port 8765 --fault drop@3 --fault nan@5-8 --seed 7
    """
    raise typer.Exit(_forwarded("server", context.args))


def fault_proxy(context: typer.Context) -> None:
    """Relay between a client and a service over a link with seeded faults: latency, jitter, loss, half-open, cuts, corruption.

    Everything after the name goes to `python -m serving.fault_injection proxy`; its own --help lists every option.

    Example: actwright fault-proxy --help
    Example: actwright fault-proxy --upstream 127.0.0.1:3000 --port 3001 --latency-ms 40 --jitter-ms 20 --at 5:half-open
    """
    raise typer.Exit(_forwarded("proxy", context.args))


def _forwarded(what: str, args: list[str]) -> int:
    """Run the tool in the foreground. Ctrl-C, or SIGINT to us alone, is passed on and it ends by itself; it never outlives us."""
    from components.deployment.service_process import tied_to_us

    # A shell starts what it puts into the background with SIGINT ignored, and the tool would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(tied_to_us([sys.executable, "-m", "serving.fault_injection", what, *args]), start_new_session=True) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
