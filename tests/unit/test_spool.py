"""Records on disk: in order, torn lines cut, cursor exact."""

import pytest

from components.adapters.mlflow.runs import flatten
from components.adapters.mlflow.server import TrackingAddress
from components.adapters.mlflow.spool import RecordSpool
from model_core.spec.errors import SpecError, TrackingError


def filled(root, n=3):
    spool = RecordSpool(root, "run-1")
    for i in range(n):
        spool.append({"i": i})
    return spool


def test_records_come_back_in_order_with_their_ends(tmp_path):
    spool = filled(tmp_path)
    records = list(spool.records())
    assert [r["i"] for r, _ in records] == [0, 1, 2]
    assert [r["i"] for r, _ in spool.records(records[0][1])] == [1, 2]
    assert records[-1][1] == spool.path.stat().st_size


def test_cursor_says_what_is_pending(tmp_path):
    spool = filled(tmp_path)
    assert spool.pending
    end = [end for _, end in spool.records()][-1]
    spool.delivered(end, "abc")
    again = RecordSpool(tmp_path, "run-1")
    assert not again.pending
    assert again.server_run_id == "abc"


def test_torn_last_line_is_not_read_and_is_cut_before_the_next_record(tmp_path):
    spool = filled(tmp_path)
    with spool.path.open("a") as file:
        file.write('{"i": 3')
    assert len(list(spool.records())) == 3
    again = RecordSpool(tmp_path, "run-1")
    again.repair()
    again.append({"i": 4})
    assert [r["i"] for r, _ in again.records()] == [0, 1, 2, 4]


def test_only_one_delivers_at_a_time(tmp_path):
    with filled(tmp_path).delivering() as first, RecordSpool(tmp_path, "run-1").delivering() as second:
        assert first
        assert not second
    with RecordSpool(tmp_path, "run-1").delivering() as third:
        assert third


def test_kept_files_have_their_own_place_even_under_one_name(tmp_path):
    spool, source = RecordSpool(tmp_path / "spool", "run-1"), tmp_path / "a.txt"
    source.write_text("one")
    first = spool.keep(source)
    source.write_text("two")
    second = spool.keep(source)
    assert [spool.kept(name).read_text() for name in (first, second)] == ["one", "two"]
    spool.drop(first)
    assert not spool.kept(first).exists()
    assert spool.kept(second).exists()


def test_a_disk_that_takes_nothing_is_said_clearly(tmp_path):
    spool = RecordSpool(tmp_path, "run-1")
    spool.path.mkdir()  # writing to a folder fails as a full disk does: with an OSError
    with pytest.raises(TrackingError, match=r"run-1.*free disk space"):
        spool.append({"i": 0})


@pytest.mark.parametrize("bad", ["", "a/b", "../x", "a b"])
def test_run_ids_that_are_no_file_names_are_refused(tmp_path, bad):
    with pytest.raises(SpecError, match="run id"):
        RecordSpool(tmp_path, bad)


def test_parameters_are_flattened():
    flat = flatten({"train": {"lr": 1e-3, "betas": [0.9, 0.95], "nested": {"x": None}}, "name": "loop", "empty": {}})
    assert flat == {"train.lr": "0.001", "train.betas": "[0.9, 0.95]", "train.nested.x": "null", "name": "loop", "empty": "{}"}


def test_every_destination_has_its_own_spool(tmp_path):
    one, two = TrackingAddress(home=tmp_path), TrackingAddress(home=tmp_path, uri="http://127.0.0.1:5000")
    assert one.spool_root != two.spool_root
    assert not one.is_server
    assert two.is_server
