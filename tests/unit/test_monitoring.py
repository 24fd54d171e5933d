"""infra/monitoring names metrics and labels that a policy service has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from serving.gateway.operations.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "infra" / "monitoring"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exposed() -> set[str]:
    """Every name under which a sample of ours is scraped."""
    return {f"{family.name}{end}" for family in Metrics().registry.collect() for end in SUFFIXES[family.type]}


def dashboard() -> list[str]:
    document = json.loads((FOLDER / "policy_service.dashboard.json").read_text())
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    return [target["expr"] for panel in document["panels"] for target in panel["targets"]]


def alerts() -> list[str]:
    document = yaml.safe_load((FOLDER / "policy_service.alerts.yaml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    return [rule["expr"] for rule in rules]


@pytest.mark.parametrize("expressions", [dashboard, alerts])
def test_every_metric_exists(expressions) -> None:
    found = {name for expression in expressions() for name in re.findall(r"\bactwright_\w+", expression)}
    assert len(found) >= 8
    assert found <= exposed(), sorted(found - exposed())


def test_every_expression_is_balanced_and_quantiles_are_of_buckets() -> None:
    for expression in (*dashboard(), *alerts()):
        for one, other in ("()", "[]", "{}"):
            assert expression.count(one) == expression.count(other), expression
        if "histogram_quantile" in expression:
            assert re.search(r"by \(le\b.*_bucket\[", expression), expression
