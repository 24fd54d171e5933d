"""What holds for every test."""

from __future__ import annotations

import signal

import hypothesis

# A property holds or not; how long one example takes is a matter of the machine (200 ms by default).
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A shell starts what it puts into the background with SIGINT ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
