"""The fuzzer, time-boxed: some hundred malformed messages to every endpoint. `make fuzz` sends 200,000 to each."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.fuzz import ENDPOINTS, sockets, volume
from tests.faults.mutate import mutants
from tests.faults.verdicts import covers

MESSAGES = 400  # to each; what more of them cost is seconds, and `make fuzz` has them


@covers("F10", I7="hundreds of malformed messages: memory flat, no session left", I8="no exception, no INTERNAL, no hang")
@pytest.mark.parametrize("name", ENDPOINTS)
def test_malformed_messages_in_process(name: str, record_property: pytest.RecordProperty, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    found = asyncio.run(volume(name, MESSAGES, seed=3))
    record_property("messages", found.messages)
    assert found.findings == []
    assert found.messages >= MESSAGES
    assert found.rss_mib[-1] - found.rss_mib[3] < 25.0


@covers("F25", I8="under fire from a fuzzer on every endpoint another cell keeps its answers and about its pace", I7="memory is bounded")
@pytest.mark.slow
def test_a_good_cell_under_fire(record_property: pytest.RecordProperty) -> None:
    found = sockets(1.5, seed=5)
    record_property("p99_ms", found["p99_ms_alone_and_under_fire"])
    alone, fired = found["p99_ms_alone_and_under_fire"]  # type: ignore[misc]
    assert found["alive"]
    assert fired < 2 * alone + 500.0  # the machine of the tests is shared; `make fuzz` prints the ratio
    before, after = found["rss_mib"]  # type: ignore[misc]
    assert after - before < 60.0


def test_the_same_seed_gives_the_same_messages() -> None:
    _, seeds, is_text, head = ENDPOINTS["WS /v1/session"]
    one, other, third = (mutants(seeds(), seed, text=is_text, head=head) for seed in (1, 1, 2))
    first = [one.next() for _ in range(200)]
    assert first == [other.next() for _ in range(200)]
    assert first != [third.next() for _ in range(200)]
