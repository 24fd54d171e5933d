"""Quality in production: what a row says of an audited episode, quiet months without alarms, and changes that are found and proposed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.artifacts.audit_files import read_audit
from components.deployment.quality.episodes import EpisodeQuality, quality_of, read_folder
from components.deployment.quality.gauges import write_gauges
from components.deployment.quality.proposal import proposal_of
from components.deployment.quality.summary import summary_of
from components.deployment.quality.watch import MEASURES, WatchSettings, alarms_of, streams_of
from components.release.retraining_proposals import ProposalBook
from flows.pipeline.recipes import get_recipe
from model_core.spec.errors import SpecError
from model_core.statistics.change import ChangeDesign, began_at, first_alarm, log_detector
from serving.workcell.audit.log import AuditLog
from tests.audit_data import tell_episode


def month(rng: np.random.Generator, trials: int, *, success: float = 0.9, shift: float = 0.0, since: int = 10**9) -> list[EpisodeQuality]:
    """Trials of one cell and task; from trial `since` on with another rate of success, and predictions that have moved by `shift`."""
    rows = []
    for number in range(trials):
        is_after = number >= since
        moved = shift if is_after else 0.0
        rows.append(
            EpisodeQuality(
                path=f"a/{number:06}-push-{number}.mcap",
                cell="cell-1",
                task="push",
                episode_id=f"push-{number}",
                model_version="m/1",
                bundle_digest="b",
                wall_ns=number,
                is_trial=True,
                success=bool(rng.random() < (success if is_after else 0.9)),
                stop_reason="success",
                held=float(rng.beta(1, 9)),
                refused=float(rng.beta(1, 20)),
                clipped=0.0,
                interventions=int(rng.random() < 0.05),
                depth=tuple(rng.dirichlet(np.ones(16))),
                trace=tuple(rng.normal(100 + 40 * moved, 10, 10)),
                action=tuple(rng.normal(0.5 + moved, 0.1, 8)),
            )
        )
    return rows


SETTINGS = WatchSettings(reference=60, month=400)


def test_twenty_quiet_months_raise_no_alarm() -> None:
    for seed in range(20):  # benchmarks/quality_months.py does a hundred, of several cells and tasks
        streams = streams_of(month(np.random.default_rng(seed), 60 + 100), SETTINGS)
        assert {stream.measure for stream in streams} == set(MEASURES)
        assert alarms_of(streams, SETTINGS) == []


@pytest.mark.parametrize(("change", "measures"), [({"success": 0.3}, {"failure"}), ({"shift": 1.0}, {"trace", "action"})])
def test_a_change_is_found_named_and_proposed_once(change: dict[str, float], measures: set[str], tmp_path: Path) -> None:
    rows = month(np.random.default_rng(7), 60 + 160, since=60 + 40, **change)
    alarms = alarms_of(streams_of(rows, SETTINGS), SETTINGS)
    assert {alarm.measure for alarm in alarms} == measures
    for alarm in alarms:
        assert 30 <= alarm.since <= 60  # it began at 40
        assert alarm.since < alarm.at < 40 + 110
        assert set(alarm.episodes) <= {row.episode_id for row in rows[60 + alarm.since :]}
        assert alarm.rate > alarm.quiet_rate
    proposal = proposal_of(get_recipe("miniature"), alarms)
    assert proposal is not None
    book = ProposalBook(tmp_path)
    book.propose(proposal)
    assert book.propose(proposal_of(get_recipe("miniature"), alarms) or proposal) == proposal
    assert alarms[0].paths[0] in proposal.reason
    assert proposal_of(get_recipe("miniature"), []) is None


def test_a_trial_without_a_decision_ends_no_watch() -> None:
    rows = month(np.random.default_rng(4), 160, shift=1.0, since=100)
    for number in (20, 90):
        rows[number] = replace(rows[number], depth=(), trace=(), action=(), refused=1.0, success=False)
    streams = streams_of(rows, SETTINGS)
    assert {stream.measure for stream in streams} == set(MEASURES)
    (moved,) = [alarm for alarm in alarms_of(streams, SETTINGS) if alarm.measure == "action"]
    assert rows[100].episode_id in moved.episodes
    assert rows[90].episode_id not in moved.episodes


def test_what_is_no_trial_and_what_has_no_quiet_time_is_not_judged() -> None:
    rows = month(np.random.default_rng(1), 100)
    assert streams_of([replace(row, is_trial=False) for row in rows], SETTINGS) == []
    assert streams_of(rows[:60], SETTINGS) == []
    assert (
        streams_of([replace(row, model_version=f"m/{n % 2}") for n, row in enumerate(rows)], SETTINGS) == []
    )  # another model, another time
    without = streams_of([replace(row, depth=()) for row in rows], SETTINGS)
    assert {stream.measure for stream in without} == set(MEASURES) - {"depth"}
    with pytest.raises(SpecError, match="quiet time"):
        WatchSettings(reference=3)


def test_the_detector_keeps_its_promise_and_reports_the_beginning() -> None:
    rng, design = np.random.default_rng(3), ChangeDesign(quiet_mean=0.2, alpha=0.05, horizon=200)
    quiet = log_detector(rng.random((400, 200)) < 0.2, 0.2)
    assert (quiet.max(axis=1) >= design.log_threshold).mean() <= 0.05  # the bound; about a third of it is used
    changed = np.concatenate([rng.random(100) < 0.2, rng.random(100) < 0.7]).astype(float)
    at = first_alarm(changed, design)
    assert at is not None
    assert 100 < at < 140
    assert 90 <= began_at(changed, 0.2, at) <= 110
    assert first_alarm(changed[:100], design) is None
    # by hand: one bet a value, M_1 = 1 * (1 + l (x - m))
    by_hand = np.mean([1 + share / 0.2 * (1 - 0.2) for share in (0.05, 0.1, 0.2, 0.4, 0.7)])
    assert log_detector([1.0], 0.2)[0] == pytest.approx(np.log(by_hand))
    with pytest.raises(SpecError, match=r"0\.\.1"):
        log_detector([1.5], 0.2)


def test_a_row_of_an_audited_episode_and_the_table(tmp_path: Path) -> None:
    with_audit = AuditLog(tmp_path)
    tell_episode(with_audit, decisions=4)
    with_audit.close()
    (file,) = tmp_path.rglob("[0-9]*-*.mcap")
    row = quality_of(read_audit(file))
    assert (row.cell, row.task, row.is_trial) == ("cell-1", "button", True)
    assert sum(row.depth) == pytest.approx(1.0, abs=1e-3)
    assert len(row.trace) == 10
    assert len(row.action) == 2 * 4
    assert 0.0 <= row.held <= 1.0
    assert read_folder(tmp_path) == [row]
    assert (tmp_path / "quality.parquet").is_file()
    assert read_folder(tmp_path) == [row]  # now from the table


def test_quality_is_written_as_gauges_for_prometheus(tmp_path) -> None:
    settings = WatchSettings(reference=50, month=400)
    rows = month(np.random.default_rng(3), 120, shift=1.0, since=60)
    streams = streams_of(rows, settings)
    alarms = alarms_of(streams, settings)
    write_gauges(tmp_path / "quality.prom", summary_of(rows), streams, alarms)
    (families,) = [{one.name: one for one in text_string_to_metric_families((tmp_path / "quality.prom").read_text())}]
    of = {"cell": "cell-1", "task": "push", "model_version": "m/1"}
    assert [(one.labels, one.value) for one in families["actwright_quality_trials"].samples] == [(of, 120.0)]
    shares = {one.labels["what"]: one.value for one in families["actwright_quality_share"].samples}
    assert shares["success"] == sum(row.success for row in rows) / 120
    raised = {one.labels["measure"] for one in families["actwright_quality_alarm"].samples if one.value}
    assert raised == {one.measure for one in alarms}
    assert raised
    away = {one.labels["measure"]: one.value for one in families["actwright_quality_away_share"].samples}
    assert away["action"] > 0.5 > away["failure"]
    with pytest.raises(SpecError, match="textfile collector"):
        write_gauges(tmp_path / "quality.txt", [], [], [])
