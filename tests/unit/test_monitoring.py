"""infra/monitoring names metrics and labels that a policy service, the controller of a fleet, and the gauges of quality have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from components.deployment.quality.gauges import quality_registry
from serving.fleet.controller.metrics import FleetMetrics
from serving.gateway.operations.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "infra" / "monitoring"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SUBJECTS = {"policy_service": lambda: [Metrics().registry], "fleet": lambda: [FleetMetrics().registry, quality_registry([], [], [])]}


def exposed(subject: str) -> dict[str, set[str]]:
    """Every name under which a sample of ours is scraped, with its labels."""
    families = {family.name: family for registry in SUBJECTS[subject]() for family in registry.collect()}
    labels = {name: set() for name in families}
    for registry in SUBJECTS[subject]():
        for collector in set(registry._names_to_collectors.values()):
            labels[collector._name] = set(collector._labelnames)
    return {f"{name}{end}": labels[name] for name, family in families.items() for end in SUFFIXES[family.type]}


def dashboard(subject: str) -> list[str]:
    document = json.loads((FOLDER / f"{subject}.dashboard.json").read_text())
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    return [target["expr"] for panel in document["panels"] for target in panel["targets"]]


def alerts(subject: str) -> list[str]:
    document = yaml.safe_load((FOLDER / f"{subject}.alerts.yaml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    return [rule["expr"] for rule in rules]


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("expressions", [dashboard, alerts])
def test_every_metric_exists_and_has_the_labels_that_are_asked_for(expressions, subject) -> None:
    known, found = exposed(subject), set()
    for expression in expressions(subject):
        for name, matched in re.findall(r"\b(actwright_\w+)(\{[^}]*\})?", expression):
            assert name in known, f"{name}: {sorted(known)}"
            assert set(re.findall(r"(\w+)!?=", matched)) <= known[name], expression
            found.add(name)
    assert len(found) >= 7


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_expression_is_balanced_and_quantiles_are_of_buckets(subject) -> None:
    for expression in (*dashboard(subject), *alerts(subject)):
        for one, other in ("()", "[]", "{}"):
            assert expression.count(one) == expression.count(other), expression
        if "histogram_quantile" in expression:
            assert re.search(r"by \(le\b.*_bucket\[", expression), expression
