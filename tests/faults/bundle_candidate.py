"""The candidate's process over the stub policy, under the identity of a bundle: python -m tests.faults.bundle_candidate BUNDLE --fd N."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

from serving.gateway.shadow.candidate import serve, yield_to_others
from tests.faults.bundle_service import opened
from tests.faults.poor_service import change_of

if __name__ == "__main__":
    yield_to_others()
    folder = Path(sys.argv[1])
    with socket.socket(fileno=int(sys.argv[3])) as sock, contextlib.suppress(EOFError, ConnectionError):
        serve(sock, opened(folder, change_of(folder)), None)
