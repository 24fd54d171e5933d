"""What a policy service tells of its own start."""

from __future__ import annotations

import logging
import re

from serving.gateway.inference.model_host import ModelHost
from serving.gateway.inference.served_model import LoadedModel
from serving.gateway.inference.stub_policy import StubPolicy, stub_contract
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.operations.service_state import ServiceState
from tests.loopback import wait_until


def test_the_log_tells_each_part_of_a_start_by_itself(caplog) -> None:
    contract, now_s = stub_contract(), [0.0]
    model = LoadedModel(policy=StubPolicy(contract=contract), contract=contract, model_version="stub/1", probes=[], bundle_digest="d" * 64)

    def load() -> LoadedModel:
        now_s[0] += 7.0
        return model

    host = ModelHost(load, GatewayLimits(), ServiceState(max_restarts=0), lambda: now_s[0])
    with caplog.at_level(logging.INFO):
        host.start()
        wait_until(lambda: "model.ready" in caplog.text)
    host.stop()
    assert re.search(r" probes=0 load_s=7\.0 probes_s=0\.0 warm_up_s=0\.0 ", caplog.text)
