"""The pages and the policy service for a person to look around, on loopback, and their clean end.

Started servers first, ended services first: policy service, MLflow, Prefect, then the console. Each is a process group of its own, and
the end is checked.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from components.adapters.processes import free_port
from components.artifacts.step_manifest import Step
from components.config.judging.champion_entry import ChampionEntry
from components.config.recipe import Recipe
from flows.platform.child_process import Child
from flows.platform.prefect_server import running_server, start_prefect_server, starting_alone
from flows.platform.wiring import Platform, open_platform
from flows.terminal.output import print_line, print_result


def stand_up(recipe: Recipe) -> None:
    """Start everything, print the addresses, wait for Ctrl-C or SIGTERM, stop everything."""
    platform, stop = open_platform(), asked_to_stop()
    with contextlib.ExitStack() as running:
        addresses = {
            "console": running.enter_context(console_page(platform)),
            "prefect": running.enter_context(prefect_page(platform)),
            "mlflow": running.enter_context(mlflow_page(platform)),
        }
        bento, _ = champion_package(platform, recipe)
        if bento is None:
            print_line(
                f"no champion of {recipe.package.model_name} is packaged, so no policy is served; `actwright run {recipe.name}` makes one"
            )
        else:
            addresses["policy"] = running.enter_context(policy_service(platform, bento))
        for name, address in addresses.items():
            print_line(f"{name:8} {address}")
        print_line("Ctrl-C stops them all")
        print_result(**addresses)
        stop.wait()
        print_line("stopping ...")
    print_line("all stopped")


@contextlib.contextmanager
def prefect_page(platform: Platform) -> Iterator[str]:
    """Prefect with its UI and its schedules; the running server of this home where there is one."""
    known = running_server(platform.settings)
    if known:
        yield known.removesuffix("/api")
        return
    with contextlib.ExitStack() as running:
        with starting_alone(platform.settings):
            child = running.enter_context(
                _running(start_prefect_server(platform.settings, pages=True, port=platform.settings.prefect_port))
            )
        yield child.ready_url.removesuffix("/api/health")


@contextlib.contextmanager
def console_page(platform: Platform) -> Iterator[str]:
    """The console over this home."""
    port = free_port(platform.settings.console_port)
    command = [sys.executable, "-m", "flows.commands.main", "console", "--port", str(port)]
    log = platform.settings.home.resolve() / "console.log"
    child = Child("the console", command, log=log, ready_url=f"http://127.0.0.1:{port}/livez", env=platform.environment)
    with _running(child):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def mlflow_page(platform: Platform) -> Iterator[str]:
    """MLflow's UI over the embedded data, or the address of the configured server."""
    if platform.settings.mlflow_uri:
        yield platform.settings.mlflow_uri
        return
    from components.adapters.mlflow.server import server_command

    port = free_port(platform.settings.mlflow_port)
    home = platform.settings.home.resolve()
    command = server_command(home, port)
    log = home / "mlflow-server.log"
    child = Child("MLflow", command.argv, log=log, ready_url=f"http://127.0.0.1:{port}/health", env=command.environment)
    with _running(child):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def policy_service(platform: Platform, packaged: Step) -> Iterator[str]:
    """The packed policy, ready when its golden probes passed."""
    from components.deployment.bento_service import running_service

    home = platform.settings.home.resolve() / "serve"
    port = free_port(platform.settings.policy_port)
    log = home / "service.log"
    with running_service(packaged.path / "bento", home=home, log=log, port=port, tell_end=print_line) as address:
        yield address.http


def champion_package(platform: Platform, recipe: Recipe) -> tuple[Step | None, ChampionEntry | None]:
    """The package of the champion of the recipe's model (None where there is none yet), and the entry that made it champion."""
    entry = platform.registry().champion_entry(recipe.package.model_name)
    label = f"{entry.model}/{entry.version}" if entry else ""
    return next((s for s in reversed(platform.store.steps("package")) if s.record.get("model_version") == label), None), entry


def asked_to_stop() -> threading.Event:
    """An event that SIGINT or SIGTERM sets; a second one ends us at once."""
    asked = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return asked


@contextlib.contextmanager
def _running(child: Child) -> Iterator[Child]:
    try:
        child.wait_ready()
        child.tell_end(print_line)
        yield child
    finally:
        child.stop()
