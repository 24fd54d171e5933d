"""openpi-client, unmodified: metadata, 200 calls, reset, the chunk broker, an error, and life after it."""

from __future__ import annotations

import sys

import numpy as np
from checks import raised, report, timed
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

CALLS = 200


def observation(call: int, size: int = 224) -> dict:
    """What pi0-LIBERO sends."""
    rng = np.random.default_rng(call)
    return {
        "observation/image": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "observation/wrist_image": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "observation/state": np.full(8, call / 8, np.float32),
        "prompt": "pick up the block",
    }


def expected(call: int) -> np.ndarray:
    return (np.full((8, 7), call / 8) + np.arange(8)[:, None] / 1024).astype(np.float32)


def main(address: str) -> None:
    host, port = address.split(":")
    client = WebsocketClientPolicy(host=host, port=int(port))
    told = client.get_server_metadata()
    report("metadata", told.get("action_horizon") == 8 and len(told.get("contract_id", "")) == 16, f"contract {told.get('contract_id')}")
    waited, wrong = [], 0
    for call in range(CALLS):
        answer, ms = timed(lambda call=call: client.infer(observation(call)))
        waited.append(ms)
        wrong += not np.array_equal(answer["actions"], expected(call))
        if call == CALLS // 2:
            client.reset()
    report(f"{CALLS} calls and a reset", wrong == 0, f"{wrong} wrong answers, median {np.median(waited):.1f} ms")
    broker = ActionChunkBroker(client, action_horizon=8)
    rows = [broker.infer(observation(1))["actions"] for _ in range(10)]
    report("chunk broker", np.array_equal(rows[:8], expected(1)) and np.array_equal(rows[8], expected(1)[0]), "10 rows of 8-row chunks")
    error = raised(lambda: client.infer(observation(0, size=200)), RuntimeError)
    report("wrong picture size is an error", "CONTRACT" in error and "Traceback" not in error, error.replace("\n", " ")[:160])
    again = WebsocketClientPolicy(host=f"ws://{host}:{port}/openpi")
    objects = {**observation(0), "x": np.array([None], dtype=object)}
    report("object arrays do not leave the client", bool(raised(lambda: again.infer(objects), ValueError)), "refused by their encoder")
    report("a new client works", np.array_equal(again.infer(observation(3))["actions"], expected(3)), "at /openpi")


if __name__ == "__main__":
    main(sys.argv[1])
