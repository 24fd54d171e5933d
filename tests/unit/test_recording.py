"""Recordings of observations: what was seen, in order, with the rows executed in between; one file without pickles."""

import json

import numpy as np
import pytest

from components.evaluation import observation_log
from components.evaluation.observation_log import _joined, _Watched
from components.evaluation.observation_recording import Recording, load_recording
from components.simulation.interface import StepOutcome
from model_core.spec.errors import SpecError
from model_core.spec.types import Observation


def seen(value: int, instruction: str = "close it") -> Observation:
    return Observation(
        images={"front": np.full((4, 6, 3), value, np.uint8)}, proprio_P=np.array([value, 0.5], np.float32), instruction=instruction
    )


class CountingSimulator:
    """A simulator that shows the number of its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        self.steps = 10 * seed
        return seen(self.steps)

    def observe(self) -> Observation:
        return seen(self.steps)

    def step(self, action_A: np.ndarray, *, render: bool = False) -> StepOutcome:
        self.steps += 1
        return StepOutcome(success=False, done=False, sim_steps=self.steps)


def drive(seed: int, decisions: int, rows: int) -> observation_log._Tape:
    sim = _Watched(CountingSimulator())  # type: ignore[arg-type]
    sim.reset("close", seed, render=False)
    for _ in range(decisions):
        sim.observe()
        for _ in range(rows):
            sim.step(np.zeros(2))
    return sim.tape


def made() -> Recording:
    return _joined([("close", 1, drive(1, 3, 4)), ("open", 2, drive(2, 2, 2))], {"checkpoint_digest": "abc"})


def test_a_watched_simulator_says_what_was_seen_and_how_many_rows_were_executed():
    found = made()
    assert len(found) == 5
    assert found.session_T.tolist() == [0, 0, 0, 1, 1]
    assert found.consumed_T.tolist() == [0, 4, 4, 0, 2]
    assert [int(s.observation.proprio_P[0]) for s in found] == [10, 14, 18, 20, 22]
    assert [[s.consumed for s in session] for session in found.sessions()] == [[0, 4, 4], [0, 2]]
    assert found.source["episodes"][1] == {"task": "open", "seed": 2, "decisions": 2}


def test_a_recording_comes_back_from_its_file(tmp_path):
    found, path = made(), tmp_path / "deep" / "seen.npz"
    again = load_recording(found.save(path))
    for one, other in zip(found, again, strict=True):
        assert np.array_equal(one.observation.images["front"], other.observation.images["front"])
        assert one.observation.instruction == other.observation.instruction
        assert (one.session, one.consumed) == (other.session, other.consumed)
    assert again.source == json.loads(json.dumps(found.source))
    assert [path] == list(path.parent.iterdir())


def test_the_first_decisions_and_too_many(tmp_path):
    assert made().first(4).session_T.tolist() == [0, 0, 0, 1]
    with pytest.raises(SpecError, match="holds 5 decisions, 6 were asked for"):
        made().first(6)


def test_files_that_are_no_recording_say_so(tmp_path):
    with pytest.raises(SpecError, match="bench record"):
        load_recording(tmp_path / "none.npz")
    torn = tmp_path / "torn.npz"
    made().save(torn)
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(SpecError, match="not a recording"):
        load_recording(torn)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(SpecError, match="not a recording"):
        load_recording(tmp_path / "other.npz")
