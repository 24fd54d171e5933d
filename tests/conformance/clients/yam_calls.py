"""ActServerPolicy of inspect-robots-yam, unmodified: three cameras, 14 numbers, chunks over /act, and its rejections."""

from __future__ import annotations

import sys

import numpy as np
import requests
from checks import raised, report
from inspect_robots.scene import Scene
from inspect_robots.types import Observation
from inspect_robots_yam import ActServerPolicy

CAMERAS = ("top_cam", "left_cam", "right_cam")
CALLS = 20


def observation(call: int, *, size: int = 224, cameras: tuple[str, ...] = CAMERAS, width: int = 14) -> Observation:
    rng = np.random.default_rng(call)
    images = {name: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for name in cameras}
    return Observation(images=images, state={"joint_pos": np.full(width, call / 8)}, instruction="fold the towel")


def expected(call: int) -> np.ndarray:
    return (np.full((8, 14), call / 8) + np.arange(8)[:, None] / 1024).astype(np.float32).astype(np.float64)


def asked(policy: ActServerPolicy, seen: Observation) -> str:
    return raised(lambda: policy.act(seen), ValueError, requests.HTTPError)


def main(address: str) -> None:
    policy = ActServerPolicy(server_url=f"http://{address}", timeout_s=10.0)
    policy.reset(Scene(id="s", instruction="fold the towel"))
    health = requests.get(f"http://{address}/act", timeout=5).json()
    report("health", health["status"] == "ok" and health["num_cameras"] == 3 and health["state_dim"] == 14, str(health)[:160])
    wrong, rates = 0, set()
    for call in range(CALLS):
        chunk = policy.act(observation(call))
        wrong += not np.array_equal([action.data for action in chunk.actions], expected(call))
        rates.add(chunk.control_hz)
    report(f"{CALLS} chunks of 14", wrong == 0 and rates == {20.0}, f"{wrong} wrong, rate {rates} Hz")
    local = {
        "a missing camera": observation(0, cameras=CAMERAS[:2]),
        "a wrong picture size": observation(0, size=200),
        "a state of 7": observation(0, width=7),
    }
    for what, seen in local.items():
        report(f"{what} is rejected", "Error" in asked(policy, seen), asked(policy, seen)[:160])
    large = ActServerPolicy(server_url=f"http://{address}", timeout_s=10.0, cam_height=200, cam_width=200)
    large.reset(Scene(id="s", instruction="fold"))
    error = asked(large, observation(0, size=200))
    report("a picture that the service was not made for is a 409", "409" in error, error[:160])
    long = ActServerPolicy(server_url=f"http://{address}", timeout_s=10.0)
    long.reset(Scene(id="s", instruction="x" * 5000))
    report("an endless instruction is a 409", "409" in asked(long, observation(0)), asked(long, observation(0))[:160])
    nan = observation(0)
    nan.state["joint_pos"][3] = np.nan
    report("NaN in the state is a 422", "422" in asked(policy, nan), asked(policy, nan)[:160])
    policy.act(observation(1))
    report("the service lives on", policy.num_inferences == CALLS + 1, "next chunk arrives")


if __name__ == "__main__":
    main(sys.argv[1])
