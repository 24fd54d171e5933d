"""Does the arm of a running cell follow the trace that a person draws in the console? Where its gripper ends, in pixels, with and without.

Run: python -m tests.scale.drawn_trace [--checkpoint FOLDER] [--episodes 10]     writes benchmarks/results/drawn_trace.json

A small policy of reach-v3 is trained in this home (ACTWRIGHT_HOME) where it is missing, and served. Each scene is run twice by
`actwright workcell run`: by the policy alone, and while Chromium draws on the live page: a line from where the gripper stood to the corner
of the demonstrated goals, as the camera sees them, that is farthest from where the policy went alone. The second scene goes on until the
person has drawn, and 12.5 s longer. Asked: the two ends lie at least 15 pixels apart and the second is nearer to the drawn one, in at least
8 of 10 scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.scale.gate_outcomes import ROOT, environment, trained

RESULT = ROOT / "benchmarks" / "results" / "drawn_trace.json"
ATTEMPTS = 4
TASK, FIRST_SEED = "reach-v3", 970_000
APART_PX, NEEDED = 15.0, 0.8
GOALS_M = tuple(product((-0.08, 0.08), (0.81, 0.89), (0.08, 0.27)))  # inside the box of reach-v3's goals
CAMERA = {"name": "front", "azimuth": 125.0, "elevation": -35.0, "distance": 0.8, "lookat": [0.0, 0.75, 0.18]}  # goals 30 pixels apart
NETWORK = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2, "feed_forward": 256, "projector": 64, "stem": [8, 16, 32]}
CURRICULUM = {"no_depth_until": 0.0, "full": 0.0, "no_depth": 0.15, "trace_given": 0.78, "action_only": 0.07}
_SIGN_IN = """() => fetch("/api/session", {method: "POST", headers: {"content-type": "application/json"}, body: '{"name": "Anna"}'})
    .then((response) => response.status)"""
CHANGES = (  # of the recipe `steering`: one task, fewer and shorter of everything, mostly with the trace given
    "collect.simulator=metaworld",
    f'collect.tasks=["{TASK}"]',
    "collect.episodes_per_task=200",
    f"collect.camera={json.dumps(CAMERA)}",
    "freeze.name=drawn",
    f"train.network={json.dumps(NETWORK)}",
    "train.steps=2000",
    "train.augment_shift_px=4",
    "train.warmup_steps=15",
    "train.global_batch=32",
    "train.micro_batch=32",
    f"train.curriculum={json.dumps(CURRICULUM)}",
    "evaluate.tasks=[]",
    "evaluate.suite=",
    f'workcells.tasks=["{TASK}"]',
    "package.model_name=actwright-drawn",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Pixels (x, y) of one scene: where the gripper began, where the policy alone ended, what was drawn, where it ended then."""

    seed: int
    begin: NDArray[np.float64]
    alone: NDArray[np.float64]
    drawn: NDArray[np.float64]
    steered: NDArray[np.float64]

    def told(self) -> dict[str, Any]:
        """As it is written."""
        apart = float(np.hypot(*(self.steered - self.alone)))
        before, after = (float(np.hypot(*(end - self.drawn))) for end in (self.alone, self.steered))
        points = {name: np.round(getattr(self, name), 1).tolist() for name in ("begin", "alone", "drawn", "steered")}
        distances = {"apart_px": round(apart, 1), "alone_from_drawn_px": round(before, 1), "steered_from_drawn_px": round(after, 1)}
        return {"seed": self.seed, **points, **distances, "follows": apart >= APART_PX and after < before}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="", help="a finished one, in place of a training")
    parser.add_argument("--episodes", type=int, default=10)
    asked = parser.parse_args()
    checkpoint = asked.checkpoint or trained(CHANGES, (), recipe="steering")
    began, scenes = time.monotonic(), measured(checkpoint, asked.episodes)
    told = [one.told() for one in scenes]
    follows = sum(one["follows"] for one in told)
    document = {
        "follows": follows,
        "of": len(told),
        "is_goal_reached": follows >= NEEDED * asked.episodes,
        "scenes": told,
        "changes_of_the_recipe": [] if asked.checkpoint else list(CHANGES),
        "took_s": round(time.monotonic() - began),
        "environment": environment(),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({name: document[name] for name in ("follows", "of", "is_goal_reached")}) + "\n")
    return 0 if document["is_goal_reached"] else 1


def measured(checkpoint: str, episodes: int) -> list[Scene]:
    """Every scene, without and with a drawing."""
    from components.adapters.processes import free_port
    from components.artifacts.step_store import StepStore
    from flows.platform.settings import load_settings, prepare_process
    from flows.platform.wiring import Platform
    from tests.browser import chromium, served_console

    settings = load_settings()
    prepare_process(settings)
    home, port = settings.home.resolve(), free_port()
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    platform = Platform(settings=settings, store=StepStore(settings.store_root))
    with running("serve", checkpoint, "--port", str(port), ready=f"http://127.0.0.1:{port}/readyz"):
        alone = ran_alone(home, port, seeds)
        with served_console(platform) as address, chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(30_000)
            page.goto(address)
            assert page.evaluate(_SIGN_IN) == 200
            return [steered_scene(page, address, home, port, one) for one in alone]


def ran_alone(home: Path, port: int, seeds: range) -> list[dict[str, Any]]:
    """Where the policy alone began and ended; its world waits for its answers."""
    told = home / "ends-alone.jsonl"
    told.unlink(missing_ok=True)
    words = cell_words(port, "alone", told, seeds.start)
    subprocess.run([*command(), *words, "--episodes", str(len(seeds))], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]


def steered_scene(page: Any, address: str, home: Path, port: int, alone: dict[str, Any]) -> Scene:
    """The scene with a drawing. A cell that stopped before its end, as where a busy machine keeps its service silent, is no trial."""
    for attempt in range(1, ATTEMPTS):
        try:
            return drawn_on(page, address, home, port, alone | {"attempt": attempt})
        except Exception as error:  # of the browser or of the cell: either way the scene was not run to its end
            sys.stderr.write(f"seed {alone['seed']} is run again: {str(error)[:200]}\n")
    return drawn_on(page, address, home, port, alone)


def drawn_on(page: Any, address: str, home: Path, port: int, alone: dict[str, Any]) -> Scene:
    """The same scene again, in real time, while a person draws on the page of its cell."""
    seed, begin_2, end_2 = alone["seed"], np.array(alone["begin"]), np.array(alone["end"])
    goals_G2 = goal_pixels()
    drawn_2 = goals_G2[np.argmax(np.linalg.norm(goals_G2 - end_2, axis=1))]
    name = f"drawn-{seed}-{alone.get('attempt', 0)}-{os.getpid()}"  # of its own: a stop stays latched for the cell that it stopped
    told, drawn = home / f"ends-{seed}.jsonl", home / f"drawn-{seed}"
    told.unlink(missing_ok=True)
    drawn.unlink(missing_ok=True)
    words = (*cell_words(port, name, told, seed), "--option", f"drawn={drawn}")
    with subprocess.Popen([*command(), *words, "--realtime"], cwd=ROOT, stdout=subprocess.DEVNULL) as cell:
        try:
            wait_for(home / "cells" / name / "view.msgpack", cell)
            page.goto(f"{address}/cells/{name}")
            draw(page, np.stack([begin_2, (begin_2 + drawn_2) / 2, drawn_2]))
            drawn.touch()
            cell.wait(300)
        finally:
            cell.terminate()
    assert told.exists(), f"{name} ended with {cell.returncode}, before its end"
    line = json.loads(told.read_text(encoding="utf-8"))
    return Scene(seed=seed, begin=begin_2, alone=end_2, drawn=drawn_2, steered=np.array(line["end"]))


def draw(page: Any, points_N2: NDArray[np.float64]) -> None:
    """Click the points on the live picture and let the arm follow them."""
    page.get_by_role("button", name="Take the pen").click()
    canvas = page.locator("svg.draws")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box, size = canvas.bounding_box(), page.evaluate("document.querySelector('svg.draws').viewBox.baseVal.width")
    for x, y in points_N2:
        page.mouse.click(box["x"] + (x + 0.5) / size * box["width"], box["y"] + (y + 0.5) / size * box["height"])
    page.get_by_role("button", name="Follow this trace").click()
    page.get_by_text("trace: applied").wait_for()


def goal_pixels() -> NDArray[np.float64]:
    """`GOALS_M` as the camera sees them, (G, 2)."""
    from components.config.data_config import CameraConfig, CollectConfig
    from components.simulation.open import open_simulator
    from model_core.spec.documents import from_document

    camera = from_document(CameraConfig, CAMERA)
    simulator = open_simulator(CollectConfig(tasks=(TASK,), camera=camera))
    try:
        return simulator.geometry()["front"].project(np.array(GOALS_M))[:, :2]
    finally:
        simulator.close()


def cell_words(port: int, name: str, told: Path, seed: int) -> Sequence[str]:
    """`actwright workcell run` of one cell."""
    options = ("--robot", "tests.scale.endless_arm:make_robot", "--option", f"told={told}", "--option", f"camera={json.dumps(CAMERA)}")
    address = ("--url", f"http://127.0.0.1:{port}", "--cell", name)
    return ("workcell", "run", "--task", TASK, *address, "--deadline-ms", "10000", "--first-seed", str(seed), *options)


def command() -> list[str]:
    """`actwright`, of this tree."""
    return [sys.executable, "-m", "flows.commands.main"]


@contextmanager
def running(*words: str, ready: str) -> Iterator[None]:
    """A command that serves, until the block ends."""
    with subprocess.Popen([*command(), *words], cwd=ROOT, stdout=subprocess.DEVNULL) as served:
        try:
            give_up_at = time.monotonic() + 600
            while True:
                with suppress(OSError):
                    urllib.request.urlopen(ready, timeout=2).close()
                    break
                if served.poll() is not None or time.monotonic() > give_up_at:
                    raise SystemExit(f"actwright {' '.join(words)} does not answer")
                time.sleep(0.2)
            yield
        finally:
            served.terminate()


def wait_for(path: Path, cell: subprocess.Popen[bytes]) -> None:
    """Until a cell has shown itself."""
    give_up_at = time.monotonic() + 120
    while not path.exists():
        if cell.poll() is not None or time.monotonic() > give_up_at:
            raise SystemExit(f"{path} is not written")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
