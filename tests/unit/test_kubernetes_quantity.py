"""Quantities of Kubernetes as numbers, beside what the official client reads."""

from __future__ import annotations

import pytest
from kubernetes.utils import parse_quantity

from components.adapters.job_kinds.offer import quantity
from model_core.spec.errors import JobError


@pytest.mark.parametrize("text", ["16Gi", "500m", 4, "1e3", "2k", "100n", "7u", "3.5", "1.5T", "2Ti", "12E", "1E2", "5e-1", 0.25])
def test_a_quantity_is_what_the_client_reads(text):
    assert quantity(text) == pytest.approx(float(parse_quantity(text)), rel=1e-12)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1X", "1mi", "-1"])
def test_what_is_none_is_refused(text):
    with pytest.raises(JobError, match="is no quantity of Kubernetes"):
        quantity(text)
