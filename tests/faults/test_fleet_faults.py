"""The agent of a cell with a real repository, a real HTTP server with ranges, signed reports, and a policy service of its own process."""

from __future__ import annotations

import datetime
import hashlib
import os

import pytest

from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import refresh
from serving.cell_files.update_lock import UpdateLock
from serving.fleet.intake.file_store import FileStore
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.policy_service import PolicyService
from serving.fleet.intake.update_metadata import Target
from tests.faults.verdicts import covers
from tests.fleet_agent import SERVICE, end_services, make_site, offer, repository_server, robot_of


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """Version 1, version 2 with an adapter on the weights of 1, and a version 3 whose probe is answered otherwise."""
    return make_site(tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def robot(offered, tmp_path):
    with robot_of(offered, tmp_path) as made:
        yield made


def test_the_first_release_is_fetched_verified_probed_and_permitted(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest, stage="fleet")
    robot.turn_until(lambda: robot.runs(one.digest))
    report = robot.controller.reports[-1]
    assert (report.contract, report.version, report.error) == (one.contract_id, 1, None)
    assert [(slot.name, slot.state, slot.release) for slot in report.slots] == [("a", "probed", one.digest), ("b", "empty", "")]
    sequences = [one.sequence for one in robot.controller.reports]
    assert sequences == sorted(set(sequences))
    assert robot.permit.release == one.digest


@covers("F18", I5="the permit does not change while an episode holds the update lock", I9="the old release answers until the swap")
def test_an_adapter_is_fetched_alone_while_the_old_release_answers_and_the_swap_waits_for_the_episode(offered, robot):
    one, two = offered.made[0].release, offered.made[1].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    offer(offered, robot.place, offered.made[1])
    sent = robot.repository.sent
    robot.controller.propose(two.digest)
    with UpdateLock(robot.cell).taken() as is_mine:
        assert is_mine
        robot.turn_until(lambda: robot.controller.reports[-1].phase == "ready")
        for _ in range(10):
            robot.agent.turn()
        assert robot.controller.reports[-1].in_episode
        assert robot.permit.release == one.digest
        assert robot.runs(one.digest)
    robot.turn_until(lambda: robot.runs(two.digest))
    adapter = two.files["bundle/checkpoint/adapter_model.safetensors"].size
    assert adapter < robot.repository.sent - sent < adapter + 40_000
    robot.controller.propose(one.digest, rollback_to=(one.digest,))
    robot.turn_until(lambda: robot.runs(one.digest))  # from the other slot: nothing is fetched
    assert robot.repository.sent - sent < adapter + 40_000


@covers("F34", I9="it is refused and reported; the old release answers on")
def test_a_release_whose_probes_differ_on_this_computer_never_runs(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    three = offer(offered, robot.place, offered.made[2])
    robot.controller.propose(three)
    robot.turn_until(lambda: robot.controller.reports[-1].error)
    assert robot.error == "PROBES"
    for _ in range(5):
        robot.agent.turn()
    assert robot.runs(one.digest)
    assert robot.permit.release == one.digest


@covers("F34", I9="a service that is killed while it is probed is started again; one that always ends is refused, not started on and on")
def test_a_service_whose_process_ends_while_it_is_probed_is_started_again_a_few_times(offered, robot, tmp_path):
    one, starts = offered.made[0].release.digest, tmp_path / "starts"
    robot.controller.propose(one)
    robot.options["service"] = ["sh", "-c", f"echo >> {starts}; : {{bundle}} {{port}}"]
    robot.prepare()
    robot.turn_until(lambda: robot.controller.reports and robot.error == "START")
    for _ in range(5):
        robot.agent.turn()
    assert len(starts.read_text()) == 4
    assert robot.permit is None
    robot.options["service"] = ["sh", "-c", f'[ -e {starts} ] || exec {{python}} -S {SERVICE} "{{bundle}}" {{port}}; rm {starts}']
    robot.prepare()
    robot.start()
    robot.controller.propose(one)
    robot.turn_until(lambda: robot.runs(one))
    assert not starts.exists()


@covers("F20", I9="an older release runs only where it is listed, a blocked one never")
def test_an_older_release_is_taken_only_where_it_is_listed_and_a_blocked_one_never(offered, robot):
    one, two = offered.made[0].release, offered.made[1].release
    offer(offered, robot.place, offered.made[1])
    robot.controller.propose(two.digest)
    robot.turn_until(lambda: robot.runs(two.digest))
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.controller.reports[-1].error)
    assert robot.error == "ROLLBACK"
    robot.controller.propose(one.digest, rollback_to=(one.digest,), blocked=(one.digest,))
    robot.turn_until(lambda: robot.error == "BLOCKED")
    robot.controller.propose(one.digest, rollback_to=(one.digest,))
    robot.turn_until(lambda: robot.runs(one.digest))
    assert robot.controller.reports[-1].version == 2


@covers("F20", I9="a half download is gone on with, and runs only whole")
def test_a_broken_download_goes_on_where_it_was(offered, robot):
    one = offered.made[0].release
    robot.repository.cut_after = 100_000
    robot.controller.propose(one.digest)
    robot.clock.is_simulated = True
    robot.turn_until(lambda: robot.runs(one.digest))
    assert robot.repository.sent < 1.1 * one.carried_bytes + 40_000


@covers("F20", I9="a flipped byte never runs; the right bytes are fetched later")
@pytest.mark.parametrize("name", ["files", "releases"])
def test_changed_bytes_never_run_and_the_right_ones_are_fetched_later(offered, robot, name):
    one = offered.made[0].release
    path = max((robot.place / "targets" / "sites" / "lab" / name).iterdir(), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    robot.controller.propose(one.digest)
    robot.clock.is_simulated = True
    robot.turn_until(lambda: robot.controller.reports and robot.error == "DIGEST")
    assert robot.permit is None
    path.write_bytes(content)
    robot.turn_until(lambda: robot.runs(one.digest))


@covers("F20", I9="a signature of another key never runs")
def test_a_release_signed_by_another_key_never_runs(offered, robot, tmp_path):
    make_keys(tmp_path / "others", ["lab"])
    robot.options["release_key"] = str(tmp_path / "others" / "release.pub.pem")
    robot.prepare()
    robot.controller.propose(offered.made[0].release.digest)
    robot.turn_until(lambda: robot.controller.reports and robot.error == "SIGNATURE")
    assert robot.permit is None


@covers("F20", I9="expired and frozen metadata bring nothing new, what runs goes on; two hours of clock error are borne")
def test_expired_metadata_bring_nothing_new_and_what_runs_goes_on(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    two = offer(offered, robot.place, offered.made[1], now=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1, hours=2))
    robot.controller.propose(two)
    robot.turn_until(lambda: robot.error == "EXPIRED")
    assert robot.runs(one.digest)
    hours = datetime.timedelta(hours=2)
    refresh(robot.place, Keys(folder=offered.keys, now=datetime.datetime.now(datetime.UTC) - hours))  # a clock two hours off is borne
    robot.controller.offset_s = -hours.total_seconds()
    robot.clock.is_simulated = True
    robot.turn_until(lambda: robot.runs(two))
    assert robot.controller.reports[-1].clock_offset_s == pytest.approx(-7200, abs=60 + robot.clock.ahead_s)


@covers("F20", I9="a mixture of old and new metadata brings nothing")
def test_old_and_new_metadata_together_bring_nothing(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    metadata = robot.place / "metadata"
    old = (metadata / "2.site-lab.json").read_bytes()
    two = offer(offered, robot.place, offered.made[1])
    new = (metadata / "3.site-lab.json").read_bytes()
    (metadata / "3.site-lab.json").write_bytes(old)
    robot.controller.propose(two)
    robot.turn_until(lambda: robot.error == "METADATA")
    assert robot.runs(one.digest)
    (metadata / "3.site-lab.json").write_bytes(new)
    robot.clock.is_simulated = True
    robot.turn_until(lambda: robot.runs(two))


def test_a_release_that_the_site_is_not_offered_is_not_taken(offered, robot):
    robot.controller.propose(offered.made[1].release.digest)
    robot.turn_until(lambda: robot.controller.reports and robot.error == "NOT_OFFERED")


@covers("F20", I9="a full disk stops the download alone")
def test_a_full_disk_stops_the_download_and_nothing_else(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    two = offer(offered, robot.place, offered.made[1])
    robot.options["spare_bytes"] = 2**60
    robot.prepare()
    robot.start()
    robot.controller.propose(two)
    robot.turn_until(lambda: robot.error == "NO_SPACE")
    assert robot.runs(one.digest)
    robot.options["spare_bytes"] = 0
    robot.prepare()
    robot.start()
    robot.turn_until(lambda: robot.runs(two))


@covers("F21", I9="30 days on the last good release, then the new one")
def test_a_site_that_is_cut_off_for_thirty_days_works_on_and_takes_what_it_missed(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    reports = len(robot.controller.reports)
    robot.controller.is_down = robot.repository.is_down = True
    robot.clock.is_simulated = True
    permit, until_s = robot.permit, robot.clock.ahead_s + 30 * 86_400
    turns = 0
    while robot.clock.ahead_s < until_s:
        wait_s = robot.agent.turn()
        robot.clock.ahead_s += max(wait_s, 6 * 3600.0)  # hours in which nothing changes cost one turn
        turns += 1
    assert turns <= 30 * 4
    assert robot.permit == permit
    assert robot.agent.update.service(permit.slot).status().state == "ready"
    two = offer(offered, robot.place, offered.made[1])
    robot.controller.propose(two)
    robot.controller.is_down = robot.repository.is_down = False
    robot.turn_until(lambda: robot.runs(two))
    assert robot.controller.reports[reports].offline
    assert not robot.controller.reports[-1].offline


def test_an_agent_that_is_started_again_finds_its_service_and_a_computer_that_is_starts_it(offered, robot):
    one = offered.made[0].release
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    service = robot.agent.update.service("a")
    pid = service._note()["pid"]
    robot.start()
    for _ in range(3):
        robot.agent.turn()
    assert robot.agent.update.service("a")._note()["pid"] == pid
    end_services(robot.home)  # as a power cut does
    robot.turn_until(lambda: service._note()["pid"] != pid and robot.runs(one.digest))


@covers("F20", I9="damaged bytes are not started, the other slot takes over")
def test_bytes_that_changed_on_the_disk_are_not_started_and_the_other_slot_takes_over(offered, robot):
    one, two = offered.made[0].release, offer(offered, robot.place, offered.made[1])
    robot.controller.propose(one.digest)
    robot.turn_until(lambda: robot.runs(one.digest))
    robot.controller.propose(two)
    robot.turn_until(lambda: robot.runs(two))
    adapter = robot.home / "slots" / robot.permit.slot / "bundle" / "checkpoint" / "adapter_model.safetensors"
    adapter.chmod(0o644)
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"!")
    end_services(robot.home)
    robot.repository.is_down = True
    robot.start()
    robot.turn_until(lambda: robot.runs(one.digest))
    robot.repository.is_down = False
    robot.controller.propose(two)
    robot.clock.is_simulated = True
    robot.turn_until(lambda: robot.runs(two))


def test_an_answer_to_another_report_changes_nothing(offered, robot):
    answer = robot.controller.answer

    robot.controller.propose(offered.made[0].release.digest)
    type(robot.controller).answer = lambda self, report: replace_sequence(answer(report))
    try:
        robot.start().turn()
        assert robot.agent.state.now.desired is None
    finally:
        type(robot.controller).answer = answer.__func__


def replace_sequence(desired):
    from msgspec.structs import replace as changed

    return changed(desired, acknowledged_sequence=desired.acknowledged_sequence - 1)


@covers("F20", I9="a service whose lock lost its note on a full disk is found by the file that it holds, and ended")
def test_a_service_whose_lock_names_no_process_is_ended(tmp_path):
    command = ("{python}", "-S", "-c", "import time; time.sleep(600)")
    service = PolicyService(folder=tmp_path, command=command, bundle=tmp_path, port=1, client=HttpClient(timeout_s=1.0))
    service.start("a" * 64)
    os.truncate(tmp_path / "service.lock", 0)
    assert service.is_alive()
    service.stop()
    assert not service.is_alive()


def test_a_download_is_no_faster_than_it_may_be(tmp_path):
    content, now = bytes(range(256)) * 1024, [0.0]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_bytes(content)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    store = FileStore(tmp_path / "store", bytes_per_s=65_536.0, spare_bytes=0, clock=lambda: now[0], sleep=sleep)
    with repository_server(tmp_path) as server:
        target = Target(url=f"{server.url}/files/one", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        turns = 1
        while not store.fetch(target, HttpClient(timeout_s=5.0), now[0] + 1.0):
            turns += 1
    assert store.path(target.sha256).read_bytes() == content
    assert now[0] == pytest.approx(4.0)  # 256 KiB at 64 KiB a second
    assert turns == 4  # each goes on behind the last byte
