"""How soon a person sees a frame: the console's player over HTTP on loopback, beside two other ways to one frame of the same film.

An episode of 5,000 frames of 640x480 (H.264 of blocks that move; a key frame every 2 frames, as LeRobot writes them, and every 250, as
encoders do by default) is opened by a console that has not seen it, and sought at random. Peers, on the same film:

- "open and seek": what `decode_video_frames` of lerobot 0.4.4 does for one timestamp, with PyAV: open the file, seek to the key frame
  before, decode up to the frame. It has neither HTTP nor an image to encode, which ours includes.
- "whole": decode from the beginning up to the frame, as viewers that load an episode whole do (for the frame in the middle).

Frames are compared pixel by pixel. The table: 10,000 episodes, asked by a word, sorted by length, a page of 200 from the middle; and in
Chromium, until rows answer keys: by the menu of the open application, and by the address in a browser that has nothing of it yet.

Run: python benchmarks/episode_player.py [--folder KEPT]     writes benchmarks/results/episode_player.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, scheduling, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "episode_player.json"
FRAMES, FPS, HEIGHT, WIDTH, SEEKS = 5000, 30, 480, 640, 40
KEY_EVERY = (2, 250)
FIRST_MS, SEEK_MS, TABLE_MS = 300.0, 100.0, 500.0
BROWSER_TURNS = 7
# the page is watched, not asked in each frame, which would cost it frames; rows count when they are painted
_SHOWN = """(began, done) => {
    const painted = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    const is_there = () => document.querySelector("[role=gridcell]");
    if (is_there()) return painted();
    const watch = new MutationObserver(() => is_there() && (watch.disconnect(), painted()));
    watch.observe(document, { childList: true, subtree: true });
}"""
_OPENED = f"""() => new Promise((done) => {{
    const began = performance.now();
    [...document.querySelectorAll("nav a")].find((one) => one.textContent === "Episodes").click();
    ({_SHOWN})(began, done);
}})"""
_LOADED = f"() => new Promise((done) => ({_SHOWN})(0, done))"
_LAST_ROWS = """(total) => new Promise((done) => {
    const grid = document.querySelector("[role=grid]"), began = performance.now();
    grid.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
    const look = () => {
        const last = grid.querySelector(`[aria-rowindex="${total + 1}"] [role=gridcell]`);
        last && last.textContent !== "..." ? done(performance.now() - began) : requestAnimationFrame(look);
    };
    look();
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the sets here, or take those that are here")
    options = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory() as work:
        folder = options.folder or Path(work)
        sets = {every: _set(folder / f"g{every}", every) for every in KEY_EVERY}
        found = {f"key frame every {every}": _measured(root, Path(work) / f"home{every}") for every, root in sets.items()}
        table = _table(Path(work) / "table")
    ours = found["key frame every 2"]["ours"]
    result = {
        "what": "milliseconds until one frame of an episode of 5,000 frames is there, medians",
        **found,
        "table_of_10000": table,
        "goals_ms": {"first": FIRST_MS, "seek": SEEK_MS, "table": TABLE_MS},
        "is_goal_reached": ours["first_ms"] < FIRST_MS and ours["seek_ms"] < SEEK_MS and table["browser_ms"]["opened_by_menu"] < TABLE_MS,
        "scheduling": scheduling(),
        "conditions": conditions(load, started, av=version("av"), starlette=version("starlette")),
    }
    written(result, RESULT)


def _set(root: Path, every: int) -> Path:
    """A LeRobot set of one long episode."""
    from tests.plain_set import CLOSE, PlainEpisode, PlainLayout, write_plain_set

    if not root.exists():
        nothing = np.zeros((FRAMES, 4), np.float32)
        small = PlainEpisode(
            state_TP=nothing, actions_TA=nothing, frames_THW3=np.zeros((FRAMES, 4, 4, 3), np.uint8), tasks=(CLOSE,) * FRAMES
        )
        write_plain_set(root, [small], PlainLayout(fps=FPS))
        film = next(root.rglob("*.mp4"))
        film.unlink()
        _film(film, every)
        info = json.loads((root / "meta/info.json").read_text())
        info["features"]["observation.images.front"]["shape"] = [HEIGHT, WIDTH, 3]
        (root / "meta/info.json").write_text(json.dumps(info))
    return root


def _film(path: Path, every: int) -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (HEIGHT // 8 + 100, WIDTH // 8 + 100, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = HEIGHT, WIDTH, "yuv420p", 1
        stream.options = {"preset": "ultrafast", "g": str(every), "crf": "26"}
        for number in range(FRAMES):
            left, top = int(300 + 200 * np.sin(number / 90)), int(200 + 150 * np.cos(number / 70))
            pixels = np.ascontiguousarray(scene[top : top + HEIGHT, left : left + WIDTH])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _measured(root: Path, home: Path) -> dict[str, Any]:
    film = next(root.rglob("*.mp4"))
    numbers = [int(n) for n in np.random.default_rng(1).integers(0, FRAMES, SEEKS)]
    firsts: list[float] = []
    for turn in range(3):
        with _Console(home / str(turn), root) as console:
            firsts.append(_ms(lambda console=console: console.frame(0)))
    with _Console(home / "seeks", root) as console:
        console.frame(0)
        seeks = [_ms(lambda n=n: console.frame(n)) for n in numbers]
        steps = [_ms(lambda n=n: console.frame(n)) for n in range(3000, 3040)]
        back = [_ms(lambda n=n: console.frame(n)) for n in range(2040, 2000, -1)]
        same = all(np.array_equal(console.pixels(n), _open_and_seek(film, n)) for n in numbers[:5])
    opened = [_ms(lambda n=n: _open_and_seek(film, n)) for n in numbers]
    assert same, "the frames of both ways differ"
    return {
        "film_mb": round(film.stat().st_size / 1e6, 1),
        "ours": {
            "first_ms": _median(firsts),
            "seek_ms": _median(seeks),
            "seek_p95_ms": round(float(np.quantile(seeks, 0.95)), 1),
            "step_ms": _median(steps),
            "step_back_mean_ms": round(statistics.mean(back), 1),
        },
        "open_and_seek_ms": _median(opened),
        "whole_ms": round(_ms(lambda: _whole(film, FRAMES // 2)), 1),
        "frames_equal": same,
    }


class _Console:
    """A console of its own over one set, and a client of it."""

    def __init__(self, home: Path, root: Path | None) -> None:
        from components.artifacts.step_store import StepStore
        from components.config.records import Silent
        from flows.pipeline.episodes.library import episode_library
        from flows.platform.settings import Settings
        from flows.platform.wiring import Platform
        from flows.web.server import ConsoleAddress, make_server

        settings = Settings(home=home, data=home / "elsewhere" / "data", runs=home / "runs")
        self.library = episode_library(settings)
        self.library.refresh([root] if root else [], Silent())
        self._server = make_server(Platform(settings=settings, store=StepStore(settings.store_root)), ConsoleAddress(port=0))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> _Console:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        self.client.get("/api/me")
        rows = self.client.get("/api/episodes").json()["rows"]
        self._where = {"place": rows[0]["place"], "episode": rows[0]["episode"], "camera": "front"} if rows else {}
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self.client.close()
        self._thread.join(20)

    def frame(self, number: int, form: str = "jpeg") -> bytes:
        answer = self.client.get("/api/episode/frame", params={**self._where, "number": number, "form": form})
        answer.raise_for_status()
        return answer.content

    def pixels(self, number: int) -> NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(self.frame(number, "png"))).convert("RGB"))


def _open_and_seek(film: Path, number: int) -> NDArray[np.uint8]:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        assert stream.time_base is not None
        wanted = round(number / FPS / stream.time_base)
        container.seek(wanted, stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is not None and frame.pts >= wanted:
                return frame.to_ndarray(format="rgb24")
    raise SystemExit(f"frame {number} was not found")


def _whole(film: Path, number: int) -> NDArray[np.uint8]:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for place, frame in enumerate(container.decode(stream)):
            if place == number:
                return frame.to_ndarray(format="rgb24")
    raise SystemExit(f"frame {number} was not found")


def _table(home: Path) -> dict[str, Any]:
    from components.data.episodes.place import Place
    from components.data.episodes.row import EpisodeRow

    like = EpisodeRow(
        number=0, episode_id="", task="pick", instruction="pick up the cup", robot="arm", outcome="solved", producer="teleop:ana",
        model="", cell="c", length=1, seconds=1.0,
    )  # fmt: skip
    with _Console(home, None) as console:
        place = Place(path=home, kind="set", name="many")
        rows = (replace(like, number=n, episode_id=f"many-{n:06d}", task=f"pick {n % 7}", length=n % 500) for n in range(10_000))
        console.library.index.put_set(place, "state", rows)
        asked = {"text": "pick", "sort": "length", "descending": "true", "offset": 5000, "limit": 200}
        pages = [_ms(lambda: console.client.get("/api/episodes", params=asked).raise_for_status()) for _ in range(20)]
        total = console.client.get("/api/episodes", params=asked).json()["total"]
        return {"episodes": total, "page_ms": _median(pages), "browser_ms": _in_browser(str(console.client.base_url), total)}


def _in_browser(address: str, total: int) -> dict[str, float]:
    """In Chromium, medians until the first rows answer keys: opened by the menu of the open application; by its address in a browser that
    has nothing of it yet; and from there, until the key End shows the last row."""
    from playwright.sync_api import sync_playwright

    from tests.browser import CHROMIUM

    found: dict[str, list[float]] = {"opened_by_menu": [], "loaded_by_address": [], "last_row": []}
    with sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser:
        for _ in range(BROWSER_TURNS):
            with browser.new_context() as context:
                page = context.new_page()
                page.goto(f"{address}/episodes", wait_until="commit")
                found["loaded_by_address"].append(page.evaluate(_LOADED))
                found["last_row"].append(page.evaluate(_LAST_ROWS, total))
                page.get_by_role("link", name="Cells").click()
                page.get_by_role("heading", name="Cells").wait_for()
                found["opened_by_menu"].append(page.evaluate(_OPENED))
    return {name: _median(values) for name, values in found.items()}


def _ms(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return 1e3 * (time.perf_counter() - began)


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 1)


if __name__ == "__main__":
    main()
