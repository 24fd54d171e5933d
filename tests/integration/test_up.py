"""`actwright up`: four servers on loopback that answer, and nothing of them left when it ends.

Run: .venv/bin/python -m pytest tests/integration/test_up.py
"""

from __future__ import annotations

import json
import signal
import urllib.request
from urllib.parse import urlsplit

import psutil
import pytest

from tests.integration.loop_runs import Home, eventually, kill_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("loop")]


@pytest.mark.soak  # short: each server by itself (test_prefect_server, test_tracking, test_service)
def test_up_opens_everything_on_loopback_and_stops_it_all(undisturbed: Home):
    process = undisturbed.start("up", "miniature")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline() or "{}")
        assert set(told) == {"console", "prefect", "mlflow", "policy"}
        for address in told.values():
            assert urlsplit(address).hostname == "127.0.0.1"
            with urllib.request.urlopen(address, timeout=60) as reply:
                assert reply.status == 200

        # the runs of the loop, made with a server that is long gone, are on the page
        request = urllib.request.Request(
            f"{told['prefect']}/api/flow_runs/filter", data=b"{}", headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            runs = json.load(reply)
        assert len([run for run in runs if run["state_type"] == "COMPLETED"]) >= 5

        probed = undisturbed.actwright("probe", told["policy"])
        assert probed.returncode == 0, probed.stderr
        assert json.loads(probed.stdout)["answer"] == "chunk"

        ours = undisturbed.processes()
        assert len(ours) >= 4
        for one in ours:
            listening = [c.laddr.ip for c in one.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
            assert set(listening) <= {"127.0.0.1"}, one.cmdline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        eventually(lambda: not undisturbed.processes(), timeout_s=10)
    finally:
        for left in undisturbed.processes():
            kill_tree(left.pid)
        kill_tree(process.pid)
        process.wait()
