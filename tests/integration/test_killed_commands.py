"""Every command that writes data sets, killed, on a full disk, and without its object store: nothing half visible, nothing lost.

A case runs once undisturbed; its result is what every other attempt must end with. Killed before one of its changes of the file system, its
targets are absent or whole and what it reads is as it was; run again, the end is the undisturbed one. A few points of a few commands are
tried in every test run, all of them by `make soak`.

Run: .venv/bin/python -m pytest tests/integration/test_killed_commands.py -n 0
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from components.data.lerobot.reader import DatasetReader
from components.data.packing.packs import PackWriter
from tests.episodes import episode, write_dataset
from tests.faults.fork_server import Done, ForkServer
from tests.mcap_data import arm_entries, write_ros2
from tests.plain_set import plain_episode, write_plain_set

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("forked")]
FLAGS = np.array([False, True, True, False])
SIGNED = ("--why", "a test", "--who", "a test")


@dataclass(frozen=True, slots=True)
class Case:
    """One command. targets: what it makes, from the folder of the case. may_stay: a second run of a finished one says that it is there."""

    words: tuple[str, ...]
    targets: tuple[str, ...]
    may_stay: bool = True


def edit(*words: str, name: str = "made") -> Case:
    return Case(("data", *words, "--as", f"out/{name}.yaml", *SIGNED), (f"out/{name}.yaml",))


CASES = {
    "select": edit("select", "set", "--outcome", "solved"),
    "trim": edit("trim", "set", "--head", "1"),
    "trim-intervened": edit("trim", "set", "--intervened"),
    "relabel": edit("relabel", "set", "--instruction", "push the button=press it"),
    "merge": edit("merge", "set", "other"),
    "split": Case(
        ("data", "split", "set", "--share", "a=0.5", "--share", "b=0.5", "--as", "part", *SIGNED),
        ("data/edits/part-a.yaml", "data/edits/part-b.yaml"),
    ),
    "repair": Case(("data", "repair", "broken", "out/whole", "--as", "out/whole.yaml", *SIGNED), ("out/whole", "out/whole.yaml")),
    "export-v3.0": Case(("data", "export", "set", "out/made"), ("out/made",)),
    "export-v2.1": Case(("data", "export", "set", "out/made", "--format", "lerobot-v2.1"), ("out/made",)),
    "export-mcap": Case(("data", "export", "set", "out/made", "--format", "mcap"), ("out/made",)),
    "inspect": Case(("data", "inspect", "set", "--page", "out/page.html"), ("out/page.html",), may_stay=False),
    "passport": Case(("data", "passport", "set", "--out", "out/PASSPORT.md"), ("out/PASSPORT.md",), may_stay=False),
    "embodiment": Case(("embodiment", "draft", "set", "--out", "out/arm.yaml"), ("out/arm.yaml",)),
    "topics": Case(("data", "topics", "log.mcap", "--draft", "out/mapping.yaml"), ("out/mapping.yaml",)),
    "packs": Case(("call", "tests.integration.test_killed_commands:make_packs", "set", "out/packs"), ("out/packs",), may_stay=False),
}
SHORT = ("select", "repair", "export-mcap")


def make_packs(source: str, target: str) -> None:
    """The episodes of a set as packs, two episodes a file."""
    writer = PackWriter(folder=Path(target), frames_per_pack=8)
    for one in DatasetReader(Path(source)).episodes():
        writer.add(one)
    writer.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read, in one folder."""
    root = tmp_path_factory.mktemp("inputs")
    write_dataset(root / "set", [episode(n, length=4, intervention_T=FLAGS, success=n != 1) for n in range(4)])
    write_dataset(root / "other", [episode(n, length=4, intervention_T=FLAGS) for n in range(4, 6)])
    broken = write_plain_set(root / "broken", [plain_episode(n, length=5, size=32) for n in range(3)])
    shutil.rmtree(broken / "meta/episodes")
    write_ros2(root / "log.mcap", arm_entries(seconds=0.4))
    (root / "out").mkdir()
    return root


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Done, dict[str, str]]]:
    """Case -> how it ended and what it made; filled by `whole`."""
    return {}


@pytest.fixture
def whole(server, inputs, undisturbed, tmp_path_factory):
    def of(name: str) -> tuple[Done, dict[str, str]]:
        if name not in undisturbed:
            under = shutil.copytree(inputs, tmp_path_factory.mktemp("whole") / "case")
            done = server.run(*CASES[name].words, under=under)
            assert done.code == 0, done.told
            undisturbed[name] = done, found_in(under, CASES[name])
            assert len(undisturbed[name][1]) == len(CASES[name].targets), done.told
        return undisturbed[name]

    return of


def found_in(under: Path, case: Case) -> dict[str, str]:
    """Target -> digest of what is there; no entry for one that is not."""
    return {name: digest_of(under / name) for name in case.targets if (under / name).exists()}


def digest_of(path: Path) -> str:
    """Of every visible file's name and bytes; without the time at which an edit was made."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".yaml":
            content = re.sub(rb"(?m)^when: .*\n", b"", content)
        if not file.name.startswith("."):
            total.update(f"{file.relative_to(path.parent)}\0".encode() + content)
    return total.hexdigest()


def visible(under: Path) -> set[str]:
    """What a person sees of what commands make."""
    return {path.relative_to(under).as_posix() for place in ("out", "data/edits") for path in (under / place).glob("[!.]*")}


def check_killed(server: ForkServer, under: Path, case: Case, whole: dict[str, str], point: str) -> None:
    """Nothing half visible, nothing changed that is read, and the second run ends like an undisturbed one."""
    found = found_in(under, case)
    if "packs" not in case.words[-1]:  # a folder to which files are added, each of them whole
        assert found.items() <= whole.items(), f"{point}: half a result is visible"
    assert visible(under) <= set(case.targets), point
    again = server.run(*case.words, under=under)
    is_there = case.may_stay and found == whole and again.code != 0 and re.search("there already|exists", again.told)
    assert again.code == 0 or is_there, f"{point}: {again.told[-2000:]}"
    assert found_in(under, case) == whole, point
    assert not list((under / "out").glob(".*.partial")), point


def inputs_digest(under: Path) -> str:
    return "".join(digest_of(under / name) for name in ("set", "other", "broken", "log.mcap"))


def points_of(changes: int, most: int) -> list[int]:
    """Numbers of changes, evenly spread, with the first and the last."""
    return sorted({int(n) for n in np.linspace(1, changes, min(most, changes))})


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.soak) for name in CASES])
def test_killed_at_its_last_change_the_end_is_the_same(server, inputs, whole, tmp_path, name):
    done, made = whole(name)
    under = shutil.copytree(inputs, tmp_path / "case")
    killed = server.run(*CASES[name].words, under=under, fault="kill", at=done.changes)
    assert killed.code == -signal.SIGKILL
    assert inputs_digest(under) == inputs_digest(inputs)
    check_killed(server, under, CASES[name], made, f"before change {done.changes}")


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_killed_anywhere_the_end_is_the_same(server, inputs, whole, tmp_path, name):
    done, made = whole(name)
    for at in points_of(done.changes, 12):
        under = shutil.copytree(inputs, tmp_path / f"case-{at}")
        killed = server.run(*CASES[name].words, under=under, fault="kill", at=at)
        assert killed.code == -signal.SIGKILL, f"{at} of {done.changes}: {killed.told}"
        assert inputs_digest(under) == inputs_digest(inputs)
        check_killed(server, under, CASES[name], made, f"before change {at} of {done.changes}")
        shutil.rmtree(under)


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_killed_again_and_again_it_ends(server, inputs, whole, tmp_path, name):
    done, made = whole(name)
    under = shutil.copytree(inputs, tmp_path / "case")
    for at in points_of(done.changes, 6):
        server.run(*CASES[name].words, under=under, fault="kill", at=at)
    check_killed(server, under, CASES[name], made, "after six kills")


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_killed_after_a_time_the_end_is_the_same(server, inputs, whole, tmp_path, name):
    _, made = whole(name)
    for number, after_s in enumerate((0.02, 0.05, 0.1, 0.2, 0.4)):
        under = shutil.copytree(inputs, tmp_path / f"case-{number}")
        server.run(*CASES[name].words, under=under, after_s=after_s)
        assert inputs_digest(under) == inputs_digest(inputs)
        check_killed(server, under, CASES[name], made, f"after {after_s} s")


def check_full(under: Path, case: Case, whole: dict[str, str], full: Done) -> None:
    """One clear sentence, and nothing half visible."""
    assert full.code == 1, full.told[-2000:]
    assert "Traceback" not in full.told, full.told[-3000:]
    assert re.search("is full|cannot write|may not grow", full.told), full.told[-500:]
    if "packs" not in case.words[-1]:
        assert found_in(under, case).items() <= whole.items(), "half a result is visible"
    assert visible(under) <= set(case.targets)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.soak) for name in CASES])
def test_on_a_full_disk_it_says_so_and_goes_on_afterwards(server, inputs, whole, tmp_path, name):
    done, made = whole(name)
    under = shutil.copytree(inputs, tmp_path / "case")
    full = server.run(*CASES[name].words, under=under, fault="full", at=max(done.changes // 2, 1))
    if found_in(under, CASES[name]) == made and full.code == 0:
        return  # nothing was to be written any more
    check_full(under, CASES[name], made, full)
    check_killed(server, under, CASES[name], made, "after a full disk")


@pytest.mark.parametrize(
    "name",  # DVC, which "split" lets record its edits, ends without a reason
    [pytest.param(name, marks=() if name == "export-v2.1" else pytest.mark.soak) for name in CASES if name != "split"],
)
def test_where_no_file_may_grow_it_says_so(server, inputs, whole, tmp_path, name):
    """A write fails inside a file, also inside one that a library of another language writes."""
    _, made = whole(name)
    under = shutil.copytree(inputs, tmp_path / "case")
    full = server.run(*CASES[name].words, under=under, fault="limit", at=3000)
    if full.code == 0:
        assert found_in(under, CASES[name]) == made
        return  # all that it writes is smaller
    check_full(under, CASES[name], made, full)
    check_killed(server, under, CASES[name], made, "after a write that failed")


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_on_a_small_disk_it_says_so(server, inputs, whole, tmp_path, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    _, made = whole(name)
    try:
        under = shutil.copytree(inputs, disk / "case")
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
        full = server.run(*CASES[name].words, under=under)
        if full.code != 0:
            check_full(under, CASES[name], made, full)
        (disk / "filler").unlink()
        check_killed(server, under, CASES[name], made, "after a full disk")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_no_command_of_these_needs_the_object_store(server, inputs, tmp_path):
    under = shutil.copytree(inputs, tmp_path / "case")
    for name in ("select", "export-mcap"):
        done = server.run(*CASES[name].words, under=under, ACTWRIGHT_STORAGE="http://127.0.0.1:9")
        assert done.code == 0, done.told
    assert set(found_in(under, CASES["select"])) | set(found_in(under, CASES["export-mcap"])) == {"out/made.yaml", "out/made"}
