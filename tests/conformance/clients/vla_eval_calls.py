"""vla-eval's Connection, unmodified: sixteen sessions at once, each of whose actions says who asked."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from checks import report
from vla_eval.connection import Connection

SESSIONS, EPISODES, STEPS = 16, 2, 10


def observation(session: int, step: int, size: int = 256) -> dict:
    """What the LIBERO benchmark sends."""
    rng = np.random.default_rng(session * 1000 + step)
    images = {name: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for name in ("agentview", "wrist")}
    states = np.full(8, session + step / 64, np.float64)
    return {"images": images, "states": states, "task_description": "put the bowl on the plate"}


def expected(session: int, step: int) -> np.ndarray:
    """Row step % 4 of the chunk that was asked for at step - step % 4 (the service gives four rows of a chunk out)."""
    asked_at = step - step % 4
    return (np.float32(session + asked_at / 64) + np.full(7, (step % 4) / 1024, np.float32)).astype(np.float32)


async def session_of(url: str, session: int) -> tuple[int, int]:
    wrong = calls = 0
    async with Connection(url) as connection:
        for _ in range(EPISODES):
            await connection.start_episode({"task": {"name": "t", "suite": "s", "task_id": 0, "episode_idx": 0}})
            for step in range(STEPS):
                action = await connection.act(observation(session, step))
                calls += 1
                wrong += not np.array_equal(np.asarray(action["actions"]), expected(session, step))
            await connection.end_episode({"metrics": {"success": True}, "steps": STEPS, "elapsed_sec": 1.0})
    return calls, wrong


async def main(address: str) -> None:
    url = f"ws://{address}/vla-eval"
    async with Connection(url) as connection:
        info = connection.server_info
        wants = info.get("observation_params", {})
        report("hello", info.get("protocol_version") == 1 and wants == {"send_wrist_image": True, "send_state": True}, str(info)[:160])
    found = await asyncio.gather(*(session_of(url, session) for session in range(SESSIONS)))
    calls, wrong = sum(c for c, _ in found), sum(w for _, w in found)
    report(
        f"{SESSIONS} sessions at once", calls == SESSIONS * EPISODES * STEPS and wrong == 0, f"{calls} actions, {wrong} of another session"
    )
    async with Connection(url) as connection:
        await connection.start_episode({"task": {"name": "t"}})
        try:
            await connection.act({**observation(0, 0), "states": np.zeros(3)})
            error = ""
        except RuntimeError as caught:
            error = str(caught)
        report("a wrong state is an error", "CONTRACT" in error and "Traceback" not in error, error[:160])
        action = await connection.act(observation(5, 0))
        report("the connection lives on", np.array_equal(np.asarray(action["actions"]), expected(5, 0)), "next action is right")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
