"""Where a person acted, by the command line: told, selected, cut out, exported, and still there when the export is read again.

Run: .venv/bin/python -m pytest tests/integration/test_intervention_commands.py -n 0
"""

from __future__ import annotations

import numpy as np
import pytest

from components.data.lerobot.reader import DatasetReader
from tests.episodes import episode, write_dataset

pytestmark = pytest.mark.xdist_group("forked")
ACTED = np.array([False, True, True, False, True, False])
SIGNED = ("--why", "a test", "--who", "a test")


@pytest.fixture
def root(tmp_path):
    flags = (ACTED, np.zeros(6, bool), None, ~ACTED)
    write_dataset(tmp_path / "set", [episode(n, length=6, intervention_T=one) for n, one in enumerate(flags)])
    return tmp_path


def test_it_is_told_selected_cut_out_and_exported(server, root):
    told = server.run("data", "show", "set", "--interventions", under=root)
    assert told.code == 0, told.told
    assert "square-0000: 3 of 6 frames (1-2, 4)" in told.told
    assert "square-0003: 3 of 6 frames (0, 3, 5)" in told.told
    assert "acted in 2 of 3 episodes, 6 of 18 frames" in told.told
    assert "1 episodes do not say" in told.told

    for answer, ids in (("yes", [0, 3]), ("no", [1]), ("unknown", [2])):
        made = server.run("data", "select", "set", "--intervened", answer, "--as", f"{answer}.yaml", *SIGNED, under=root)
        assert made.code == 0, made.told
        listed = server.run("data", "show", f"{answer}.yaml", "--episodes", under=root).told
        assert [f"square-{n:04d}" in listed for n in range(4)] == [n in ids for n in range(4)]

    cut = server.run("data", "trim", "yes.yaml", "--intervened", "--as", "cut.yaml", *SIGNED, under=root)
    assert "6 frames in which a person acted are kept, and 4 frames between them" in cut.told
    done = server.run("data", "export", "cut.yaml", "out", "--format", "lerobot-v2.1", under=root)
    assert done.code == 0, done.told
    read = DatasetReader(root / "out")
    found = [one.intervention_T for one in read.episodes(images=False)]
    np.testing.assert_array_equal(found[0], ACTED[1:5])
    np.testing.assert_array_equal(found[1], ~ACTED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("select", "set", "--intervened", "perhaps"), "expected yes, no or unknown"),
        (("select", "set", "--episodes", "1", "--intervened", "yes"), "none of 1 episodes is one"),
        (("trim", "set", "--intervened"), "2 of 4 episodes have no frame in which a person is known to have acted"),
        (("trim", "set", "--intervened", "--head", "1"), "expected one of them"),
    ],
)
def test_what_makes_no_sense_is_refused(server, root, words, said):
    refused = server.run("data", *words, "--as", "made.yaml", *SIGNED, under=root)
    assert refused.code == 2
    assert said in " ".join(refused.told.replace("│", " ").split())
    assert not (root / "made.yaml").exists()
