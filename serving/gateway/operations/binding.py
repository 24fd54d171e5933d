"""To which address a `bentoml serve` process binds, which decides whether it may start without tokens."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from itertools import pairwise


def bound_host(argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Where a `bentoml serve` process binds, from its command line, or None for a process that binds nothing itself.

    Such a process first reads --host (by default it is reachable from everywhere), then starts workers that are handed the
    bound socket as --fd.
    """
    options = dict(pairwise(argv))
    if (fd := options.get("--fd", "")).isdigit():
        try:
            with socket.socket(fileno=os.dup(int(fd))) as bound:
                return str(bound.getsockname()[0]) if bound.family in {socket.AF_INET, socket.AF_INET6} else None
        except OSError:
            return None
    if "serve" not in argv:
        return None
    joined = next((arg.partition("=")[2] for arg in argv if arg.startswith("--host=")), None)
    return joined or options.get("--host") or options.get("-h") or environment.get("BENTOML_HOST") or "0.0.0.0"
