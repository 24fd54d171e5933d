"""What holds for every test."""

from __future__ import annotations

import signal

# A shell starts what it puts into the background with SIGINT ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
