"""Every test here that says what it covers leaves its verdict in reports/faults.json, passed or not."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.faults import verdicts


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marks = list(item.iter_markers("faults"))
    if marks and (report.when == "call" or report.failed):
        seen = "".join(f"; {name}: {value}" for name, value in item.user_properties)
        why = f"; {str(call.excinfo.value)[:300]}" if call.excinfo is not None else ""
        verdicts.record(item.nodeid, marks, report.passed, seen + why)
    return report


@pytest.fixture(autouse=True)
def worlds_end() -> Generator[None, None, None]:
    """Close what a test's worlds have open."""
    yield
    from tests.faults.world import OPEN_DRIVERS

    while OPEN_DRIVERS:
        OPEN_DRIVERS.pop().close()
