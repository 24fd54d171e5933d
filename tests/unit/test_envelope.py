"""Nothing reaches a driver that the commissioning file does not allow: in a fixed order, clipped a little, refused beyond."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import from_document
from model_core.spec.errors import ContractError, SpecError
from serving.workcell.motion.chunk_curve import ChunkRef, SessionKey
from serving.workcell.motion.commissioning import Commissioning, main, read, template, write
from serving.workcell.motion.limits import Limits, tightened, unbounded, widest_limits
from serving.workcell.motion.safety_envelope import Envelope
from serving.workcell.robot.interface import CommandTag
from serving.workcell.robot.strict_driver import StrictDriver, simple_body
from tests.fakes import make_contract

KEY = SessionKey(session_id="s", epoch=2, contract_id="k", model_version="m")
REF = ChunkRef(chunk_id="c", session_id="s", epoch=2, seq=1, contract_id="k", model_version="m", expires_at_s=10.0)
STILL = np.zeros(4, np.float32)


def narrow(body: EmbodimentSpec, **limits: object) -> Limits:
    wide = widest_limits(body)
    moving = [replace(d, **limits) if d.name != "gripper" else d for d in wide.dims]  # type: ignore[arg-type]
    return replace(wide, dims=tuple(moving), clip_fraction=0.1)


def act(*values: float) -> NDArray[np.float32]:
    return np.array([*values, *[0.0] * (4 - len(values))], np.float32)


def test_the_first_thing_that_is_wrong_is_named_in_the_fixed_order() -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, max_jump=0.1, max_velocity=1.0, low=-0.5, high=0.5))
    bad = act(np.nan)
    stale = replace(REF, epoch=1, contract_id="other")

    def stage(action_A: NDArray[np.float32], ref: ChunkRef, now_s: float) -> str:
        return envelope.check(action_A, ref, KEY, now_s=now_s, proprio_P=STILL).stage

    assert stage(bad, stale, 99) == "epoch"
    assert stage(bad, replace(stale, epoch=2), 99) == "contract"
    assert stage(bad, REF, 99) == "finite"
    assert stage(act(0.9), REF, 99) == "age"
    assert stage(act(0.9), REF, 0) == "jump"
    assert stage(act(0.09), REF, 0) == "velocity"
    assert stage(act(0.04), REF, 0) == ""
    assert envelope.tally.refused == {"epoch": 1, "contract": 1, "finite": 1, "age": 1, "jump": 1, "velocity": 1}


@pytest.mark.parametrize(
    ("limits", "action", "stage"),
    [
        ({"max_jump": 0.1}, 0.2, "jump"),
        ({"max_velocity": 2.0}, 0.2, "velocity"),
        ({"max_acceleration": 40.0}, 0.2, "acceleration"),
        ({"max_jerk": 800.0}, 0.2, "jerk"),
        ({"low": -0.1, "high": 0.1}, 0.2, "workspace"),
    ],
)
def test_each_limit_refuses_by_itself(limits: dict[str, object], action: float, stage: str) -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, **limits))
    assert envelope.check(act(action), REF, KEY, now_s=0, proprio_P=STILL).stage == stage


def test_a_little_too_much_is_clipped_and_counted() -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, max_jump=0.1))
    verdict = envelope.check(act(0.105, 0.05), REF, KEY, now_s=0, proprio_P=STILL)
    assert not verdict.is_refused
    assert verdict.action_A[:2].tolist() == pytest.approx([0.1, 0.05])
    assert verdict.clipped == {"x": pytest.approx(0.005, abs=1e-6)}
    assert envelope.tally.clips == {"x": 1}


def test_jump_is_from_the_measured_pose_and_not_from_the_last_command() -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, max_jump=0.2))
    for place in (0.1, 0.2, 0.3):  # a blocked arm: commanded on, measured still at 0
        last = envelope.check(act(place), REF, KEY, now_s=0, proprio_P=STILL)
    assert last.stage == "jump"


def test_a_delta_may_not_leave_the_workspace_and_may_come_back() -> None:
    body = simple_body()
    limits = narrow(body, measured_by="x", gain=0.1, place_low=-0.2, place_high=0.2)
    limits = replace(limits, dims=(limits.dims[0], *widest_limits(body).dims[1:]))
    envelope = Envelope(body, limits)
    at_edge = np.array([0.19, 0, 0, 0], np.float32)
    assert envelope.check(act(0.2), REF, KEY, now_s=0, proprio_P=at_edge).action_A[0] == pytest.approx(0.1, abs=1e-5)
    assert envelope.check(act(0.9), REF, KEY, now_s=0, proprio_P=at_edge).stage == "workspace"
    outside = np.array([0.3, 0, 0, 0], np.float32)
    assert envelope.check(act(-0.9), REF, KEY, now_s=0, proprio_P=outside).stage == ""
    assert envelope.check(act(0.05), REF, KEY, now_s=0, proprio_P=outside).action_A[0] == 0.0


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_steps_too_small_to_complain_of_lead_nowhere(direction: float) -> None:
    body = simple_body()
    envelope = Envelope(body, narrow(body, measured_by="x", gain=0.1, place_low=-0.2, place_high=0.2))
    place = 0.2 * direction
    for _ in range(1000):
        verdict = envelope.check(act(1.5e-5 * direction), REF, KEY, now_s=0.0, proprio_P=act(place))
        assert not verdict.is_refused
        place += 0.1 * float(verdict.action_A[0])
    assert abs(place) <= 0.2 + 1e-6


def test_a_chunk_is_refused_before_its_first_row() -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, max_velocity=2.0))
    rows_KA = np.zeros((8, 4), np.float32)
    rows_KA[5:, 0] = 0.5
    verdict = envelope.check_rows(rows_KA, STILL)
    assert verdict.stage == "velocity"
    assert verdict.reason.startswith("row 5")
    assert envelope.check(act(0.05), REF, KEY, now_s=0, proprio_P=STILL).stage == ""  # nothing was remembered


def test_a_hold_always_passes_inside_the_workspace_and_ends_the_motion() -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, max_acceleration=8.0, low=-0.5, high=0.5))
    envelope.check(act(0.02), REF, KEY, now_s=0, proprio_P=STILL)
    assert envelope.hold(act(3.0, np.nan)).tolist() == [0.5, 0.0, 0.0, 0.0]
    envelope.restart()
    assert envelope.check(act(0.02), REF, KEY, now_s=0, proprio_P=STILL).stage == ""


def test_a_hold_does_not_leap_back_when_the_body_is_outside() -> None:
    body = simple_body(mode="absolute")
    envelope = Envelope(body, narrow(body, low=-0.5, high=0.5))
    outside_P = STILL.copy()
    outside_P[0] = 0.75
    assert envelope.hold(act(0.75), outside_P).tolist() == [0.75, 0.0, 0.0, 0.0]
    assert envelope.hold(act(3.0, -3.0), outside_P).tolist() == [0.75, -0.5, 0.0, 0.0]
    assert envelope.hold(act(0.75), STILL).tolist() == [0.5, 0.0, 0.0, 0.0]  # nobody measured it there


@settings(max_examples=80, deadline=None)
@given(
    mode=st.sampled_from(["absolute", "delta", "velocity"]),
    values=st.lists(st.tuples(*[st.floats(-2, 2, width=32)] * 3), min_size=1, max_size=25),
    jump=st.floats(0.05, 2),
    velocity=st.floats(0.5, 40),
    acceleration=st.floats(5, 1000),
    jerk=st.floats(100, 50_000),
)
def test_what_passes_never_breaks_the_strict_driver(
    mode: str, values: list[tuple[float, ...]], jump: float, velocity: float, acceleration: float, jerk: float
) -> None:
    body = simple_body(mode=mode)
    limits = narrow(body, max_jump=jump, max_velocity=velocity, max_acceleration=acceleration, max_jerk=jerk)
    envelope, driver = Envelope(body, limits), StrictDriver(body, limits, lambda: 0.0, steps=10_000)
    driver.reset(0)
    for row, value in enumerate(values):
        verdict = envelope.check(act(*value), REF, KEY, now_s=0, proprio_P=driver.proprio_P())
        if verdict.is_refused:
            held = envelope.hold(driver.proprio_P()[:4] * [1, 1, 1, 0] if mode == "absolute" else STILL)
            driver.act(held.astype(np.float32))
            continue
        driver.tag(
            CommandTag(
                mode="RUN", chunk_id="c", session_id="s", epoch=2, seq=1, contract_id="k", model_version="m", row=row, expires_at_s=10
            )
        )
        driver.act(verdict.action_A)  # raises InvariantBroken if anything is beyond a limit
    assert driver.breaches == []


@given(st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 4), min_size=1, max_size=20))
def test_the_widest_limits_never_disturb_a_delta_arm(values: list[tuple[float, ...]]) -> None:
    """The default loop works without a commissioning file: guarded rows go through bit for bit."""
    body = make_contract().embodiment
    envelope = Envelope(body, tightened(widest_limits(body), body))
    for value in values:
        action_A = np.array(value, np.float32)
        verdict = envelope.check(action_A, REF, KEY, now_s=0, proprio_P=STILL)
        assert not verdict.is_refused
        assert verdict.action_A.tolist() == action_A.tolist()


# --- where relative and delta numbers lead --------------------------------------------------------------------------------


def measured_delta(*, soft: tuple[float, float] | None = None, mode: str = "delta") -> EmbodimentSpec:
    """A hand whose x is commanded by steps, or from the start of the chunk, and measured under the same name, unit and frame."""
    body = simple_body(mode="absolute")
    moving = tuple(replace(d, mode=mode, low=-0.5, high=0.5) for d in body.action.dims[:3])
    state = body.proprio.dims
    if soft is not None:
        state = (replace(state[0], soft_low=soft[0], soft_high=soft[1]), *state[1:])
    return replace(
        body,
        action=replace(body.action, dims=(*moving, body.action.dims[3]), mode=""),
        proprio=replace(body.proprio, dims=state),
        hold=(None,) * 4 if mode == "relative" else (0.0, 0.0, 0.0, None),
    )


def at(x: float) -> NDArray[np.float32]:
    return np.array([x, 0, 0, 0], np.float32)


def test_a_measured_delta_may_go_as_far_as_its_measurement_and_a_release_may_say_less() -> None:
    body = measured_delta()
    wide = widest_limits(body)
    assert [(d.measured_by, d.place_low, d.place_high) for d in wide.dims] == [(n, -2.0, 2.0) for n in "xyz"] + [("", None, None)]
    tight = tightened(wide, body, measured_delta(soft=(-0.3, 0.4)))
    assert (tight.dims[0].place_low, tight.dims[0].place_high) == (-0.3, 0.4)
    assert tight.dims[1:] == wide.dims[1:]
    narrowed = replace(tight, dims=(replace(tight.dims[0], place_low=-0.1), *tight.dims[1:]))
    assert tightened(narrowed, body, measured_delta(soft=(-0.3, 0.35))).dims[0].place_low == -0.1
    envelope = Envelope(body, tight)
    assert envelope.check(act(0.3), REF, KEY, now_s=0, proprio_P=at(0.35)).stage == "workspace"
    assert envelope.check(act(0.07), REF, KEY, now_s=0, proprio_P=at(0.35)).action_A[0] == pytest.approx(0.05)  # clipped
    assert envelope.tally.clips == {"x": 1}
    assert envelope.check(act(-0.3), REF, KEY, now_s=0, proprio_P=at(0.35)).stage == ""


def test_soft_limits_of_the_state_count_in_the_unit_of_the_cell_and_without_a_place_in_the_file() -> None:
    body = measured_delta()
    there = measured_delta().proprio.dims[0]
    in_mm = replace(there, unit="mm", low=-2000.0, high=2000.0, soft_low=-300.0, soft_high=400.0)
    release = replace(body, proprio=replace(body.proprio, dims=(in_mm, *body.proprio.dims[1:])))
    wide = widest_limits(body)
    for limit in (wide.dims[0], replace(wide.dims[0], place_low=None, place_high=None), replace(wide.dims[0], measured_by="")):
        tight = tightened(replace(wide, dims=(limit, *wide.dims[1:])), body, release).dims[0]
        assert (tight.measured_by, tight.gain) == ("x", 1.0)
        assert (tight.place_low, tight.place_high) == pytest.approx((-0.3, 0.4))


def test_a_chunk_of_deltas_is_refused_before_its_first_row_when_it_leads_outside() -> None:
    body = measured_delta(soft=(-0.3, 0.4))
    envelope = Envelope(body, tightened(widest_limits(body), body))
    rows_KA = np.zeros((8, 4), np.float32)
    rows_KA[:, 0] = 0.1
    assert envelope.check_rows(rows_KA, at(0.0)).reason.startswith("row 4: x is 0.1, workspace")
    assert not envelope.check_rows(rows_KA[:4], at(0.0)).is_refused
    assert not envelope.check_rows(rows_KA, at(-0.4)).is_refused  # outside on the other side: it comes back
    assert envelope.check_rows(-rows_KA, at(-0.4)).stage == "workspace"
    assert not envelope.check_rows(rows_KA, at(0.0), first=5).is_refused


def test_a_relative_number_is_bounded_as_it_is_said_and_as_the_place_that_it_means() -> None:
    body = measured_delta(soft=(-0.3, 0.4), mode="relative")
    x = replace(body.action.dims[0], soft_low=-0.2, soft_high=0.2)
    release = replace(body, action=replace(body.action, dims=(x, *body.action.dims[1:])))
    tight = tightened(widest_limits(body), body, release)
    assert (tight.dims[0].low, tight.dims[0].high) == (-2.0, 2.0)  # where it may be held
    assert (tight.dims[0].offset_low, tight.dims[0].offset_high) == (-0.2, 0.2)
    envelope = Envelope(body, tight)
    rows_KA = np.zeros((4, 4), np.float32)
    rows_KA[:, 0] = (0.05, 0.1, 0.15, 0.21)
    kept_KA, verdict = envelope.check_offsets(rows_KA)
    assert kept_KA[:, 0].tolist() == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert verdict.clipped == {"x": pytest.approx(0.01, abs=1e-6)}
    rows_KA[3, 0] = 0.4
    assert envelope.check_offsets(rows_KA)[1].stage == "workspace"
    assert not envelope.check_offsets(rows_KA, judged=4)[1].is_refused  # rows that an older chunk was allowed
    assert envelope.check(act(0.6), REF, KEY, now_s=0, proprio_P=at(0.35)).stage == "workspace"
    assert envelope.check(act(0.39), REF, KEY, now_s=0, proprio_P=at(0.35)).stage == ""
    envelope.restart()
    assert envelope.check(act(0.6), REF, KEY, now_s=0, proprio_P=at(0.7)).stage == ""  # outside already: it comes back
    envelope.restart()
    assert envelope.check(act(0.8), REF, KEY, now_s=0, proprio_P=at(0.7)).stage == "workspace"


@settings(max_examples=100, deadline=None)
@given(
    start=st.floats(-0.3, 0.4),
    values=st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=30),
    gain=st.sampled_from([1.0, 0.1, -0.5]),
    slip=st.floats(0.0, 1.0),
)
def test_no_sequence_of_deltas_leads_out_of_the_place_limits(start: float, values: list[float], gain: float, slip: float) -> None:
    """slip: the part of each step that the body does not do; it is measured anew, so nothing adds up."""
    body = measured_delta(soft=(-0.3, 0.4))
    limits = tightened(widest_limits(body), body)
    limits = replace(limits, dims=(replace(limits.dims[0], gain=gain), *limits.dims[1:]), clip_fraction=0.1)
    envelope, x = Envelope(body, limits), start
    for value in values:
        verdict = envelope.check(act(value), REF, KEY, now_s=0, proprio_P=at(x))
        if not verdict.is_refused:
            x += (1 - slip) * gain * float(verdict.action_A[0])
        assert -0.3 - 1e-4 <= x <= 0.4 + 1e-4


@settings(max_examples=100, deadline=None)
@given(
    mode=st.sampled_from(["delta", "relative"]),
    start=st.floats(-0.6, 0.6),
    values=st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=12),
)
def test_a_chunk_that_is_let_in_is_not_refused_while_the_body_does_what_it_is_told(mode: str, start: float, values: list[float]) -> None:
    body = measured_delta(soft=(-0.3, 0.4), mode=mode)
    envelope = Envelope(body, replace(tightened(widest_limits(body), body), clip_fraction=0.1))
    rows_KA = np.zeros((len(values), 4), np.float32)
    rows_KA[:, 0] = values if mode == "delta" else np.float32(start) + np.array(values, np.float32)
    if envelope.check_rows(rows_KA, at(start)).is_refused:
        return
    x = float(np.float32(start))
    for row_A in rows_KA:
        # What it reaches is its float32 reading: a rounding, never a refusal.
        verdict = envelope.check(row_A, REF, KEY, now_s=0, proprio_P=at(x))
        assert not verdict.is_refused
        x = float(verdict.action_A[0]) + (x if mode == "delta" else 0.0)


def test_what_nothing_measures_is_said_at_commissioning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract, out = tmp_path / "contract.json", tmp_path / "limits.json"
    body = simple_body()
    document = make_contract(body)
    contract.write_text(json.dumps({"contract": document.to_json()}))
    said = unbounded(widest_limits(body), body)
    assert [sentence.split(" ")[0] for sentence in said] == ["dx", "dy", "dz"]  # not the gripper
    assert "measures it" in said[0]
    assert main(["template", "--contract", str(contract), "--cell", "c", "--out", str(out), "--place", "dx=x,0.02"]) == 0
    told = capsys.readouterr().out
    assert "NOT BOUNDED: dx" not in told
    assert "NOT BOUNDED: dy" in told
    assert "NOT BOUNDED: dz" in read(out).note
    assert main(["check", str(out), "--contract", str(contract)]) == 0
    assert "NOT BOUNDED: dy" in capsys.readouterr().out
    assert unbounded(widest_limits(measured_delta()), measured_delta()) == []
    assert unbounded(widest_limits(simple_body(mode="relative")), simple_body(mode="relative")) == []
    assert main(["template", "--contract", str(contract), "--cell", "c", "--out", str(out), "--place", "fx=x,0.02"]) == 2


def test_a_place_that_nothing_measures_is_refused_at_the_start() -> None:
    contract = make_contract(simple_body())
    made = template("c", contract)
    limits = replace(made.limits, dims=(replace(made.limits.dims[0], place_high=0.1), *made.limits.dims[1:]))
    with pytest.raises(SpecError, match="nothing measures"):
        replace(made, limits=limits).limits_for("c", contract)


# --- the file -----------------------------------------------------------------------------------------------------------


def test_a_file_is_for_one_cell_one_body_and_one_contract(tmp_path: Path) -> None:
    contract = make_contract()
    made = replace(template("cell-01", contract), commissioned_by="anna")
    write(tmp_path / "limits.json", made)
    found = read(tmp_path / "limits.json")
    assert found == made
    assert found.digest == made.digest
    assert len(found.limits_for("cell-01", contract).dims) == 4
    for cell, changed, field in (
        ("cell-02", contract, "workcell"),
        ("cell-01", make_contract(chunk_length=6), "contract_id"),
        ("cell-01", make_contract(simple_body()), "embodiment"),
    ):
        with pytest.raises(ContractError, match=field):
            found.limits_for(cell, changed)


def test_limits_are_not_read_in_another_unit_of_a_body_of_the_same_name() -> None:
    contract = make_contract()
    found = template("cell-01", contract)
    body = contract.embodiment
    dims = tuple(replace(d, unit="mm" if d.name != body.gripper_dim else d.unit) for d in body.action.dims)
    other = replace(body, action=replace(body.action, dims=dims))
    with pytest.raises(ContractError, match=r"limits have no unit\. Fix: give this robot's embodiment a name of its own"):
        found.limits_for("cell-01", contract, other)
    assert found.limits_for("cell-01", contract, body).dims == found.limits_for("cell-01", contract).dims


def test_a_release_tightens_and_never_widens() -> None:
    body = make_contract().embodiment
    dims = tuple(replace(d, soft_low=-0.5, soft_high=0.4) for d in body.action.dims)
    release = replace(body, action=replace(body.action, dims=dims))
    tight = tightened(widest_limits(body), body, release)
    assert [(d.low, d.high) for d in tight.dims] == [(-0.5, 0.4)] * 4
    narrowed = replace(tight, dims=tuple(replace(d, low=-0.1, high=0.1) for d in tight.dims))
    assert [(d.low, d.high) for d in tightened(narrowed, body, release).dims] == [(-0.1, 0.1)] * 4


def test_a_release_tightens_in_whatever_unit_it_speaks() -> None:
    body = simple_body(mode="absolute")
    x = body.action.dims[0]
    assert x.unit == "m"
    in_mm = replace(x, unit="mm", low=1e3 * x.low, high=1e3 * x.high, soft_low=500 * x.low, soft_high=500 * x.high)
    release = replace(body, action=replace(body.action, dims=(in_mm, *body.action.dims[1:])))
    tight = tightened(widest_limits(body), body, release)
    assert (tight.dims[0].low, tight.dims[0].high) == pytest.approx((x.low / 2, x.high / 2))
    assert tight.dims[1:] == widest_limits(body).dims[1:]
    unknown = replace(release, action=replace(release.action, dims=(replace(in_mm, unit="mile"), *release.action.dims[1:])))
    with pytest.raises(SpecError, match="unit"):
        tightened(widest_limits(body), body, unknown)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(kind="x"), "kind"),
        (lambda d: d.update(speed=1), "speed"),
        (lambda d: d.update(workcell=""), "workcell"),
        (lambda d: d["limits"].update(max_rejects=0), "max_rejects"),
        (lambda d: d["limits"].update(max_rejects=True), "max_rejects"),
        (lambda d: d["limits"].update(clip_fraction=-1), "clip_fraction"),
        (lambda d: d["limits"].update(hold_within_ms=float("nan")), "hold_within_ms"),
        (lambda d: d["limits"].update(sped=1), "sped"),
        (lambda d: d["limits"]["dims"][0].update(max_velocity="4"), "max_velocity"),
        (lambda d: d["limits"]["dims"][0].update(max_jump=-1), "max_jump"),
        (lambda d: d["limits"]["dims"][0].update(low=5), "low"),
        (lambda d: d["limits"]["dims"][0].update(velocity=1), "velocity"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field_named(change, says: str) -> None:
    document = json.loads(json.dumps(template("c", make_contract()).to_json()))
    change(document)
    with pytest.raises(SpecError, match=says):
        from_document(Commissioning, document)


def test_the_command_writes_a_template_and_checks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract, out = tmp_path / "contract.json", tmp_path / "limits.json"
    contract.write_text(json.dumps({"contract": make_contract().to_json()}))
    argv = ["template", "--contract", str(contract), "--cell", "c", "--out", str(out)]
    assert main([*argv, "--place", "dx=x,0.04"]) == 0
    assert main(["check", str(out)]) == 0
    assert "NOBODY" in capsys.readouterr().out
    assert read(out).limits.dims[0].place_low == -2.0
    assert main([*argv, "--place", "dx=nothing"]) == 2
    assert main(["check", str(contract)]) == 2
    assert from_document(Limits, read(out).limits.to_json()) == read(out).limits
    assert isinstance(read(out), Commissioning)
