"""`python -m serving.gateway.http.drain`: let running episodes finish before a service is stopped.

An orchestrator calls it before it sends SIGTERM (infra/k8s): new sessions and episodes are refused from now on, and this
returns when the last running episode has ended, or after --wait-s. Needs a token with the role operate where tokens are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

_POLL_S = 0.5
_ANSWER_S = 5.0


def drain(url: str, token: str, wait_s: float, *, reason: str = "it is being stopped", sleep: Callable[[float], None] = time.sleep) -> int:
    """Drain the service at `url` ("http://host:port"); returns how many episodes still ran after `wait_s`. Raises OSError."""
    give_up_at = time.monotonic() + wait_s
    running = _episodes(url, token, "/v1/admin/drain", json.dumps({"reason": reason}).encode())
    while running and time.monotonic() < give_up_at:
        sleep(_POLL_S)
        running = _episodes(url, token, "/v1/status", None)
    return running


def _episodes(url: str, token: str, path: str, body: bytes | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url + path, data=body, headers=headers), timeout=_ANSWER_S) as answer:
        return int(json.load(answer)["episodes"])


def main(argv: list[str] | None = None) -> int:
    """Drain, and return 0 when no episode runs any more; 1 when some do, or the service could not be drained."""
    args = _parser().parse_args(argv)
    try:
        token = args.token_file.read_text().strip() if args.token_file else os.environ.get("ACTWRIGHT_TOKEN", "")
        running = drain(args.url.rstrip("/"), token, args.wait_s)
    except (OSError, ValueError, KeyError) as error:  # HTTPError is an OSError
        sys.stderr.write(f"{args.url} was not drained: {error}\n")
        return 1
    sys.stdout.write(f"{args.url}: {running} episodes still run\n" if running else f"{args.url}: no episode runs any more\n")
    return 1 if running else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.gateway.http.drain",
        description="Begin no new episode, and wait until the running ones have ended.",
        epilog="Example: python -m serving.gateway.http.drain --wait-s 120 --token-file operate.token",
    )
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="the service (http://127.0.0.1:3000)")
    parser.add_argument("--wait-s", type=float, default=120.0, help="wait no longer than this (120)")
    parser.add_argument("--token-file", type=Path, help="bearer token with the role operate (default: ACTWRIGHT_TOKEN, if set)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
