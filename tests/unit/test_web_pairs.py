"""Image and text pairs of the web: read from files of both public layouts, wrong rows set aside with a reason, found again by digest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from components.config.records import Silent
from components.data.web_pairs import checks
from components.data.web_pairs.listing import ASIDE, LISTING, ROWS, make_listing
from components.data.web_pairs.opened import WebPairs, read_listing
from flows.commands.data.commands import add_data
from model_core.spec.errors import DatasetError
from tests.web_pairs import good_rows, picture, turns, write_llava, write_parquet


def listed(place: Path, out: Path, **options):
    return make_listing(place, out, Silent(), **options)


def test_rows_of_parquet_are_listed_and_their_images_found_again(tmp_path):
    write_parquet(tmp_path / "data/train-0.parquet", good_rows(9))
    write_parquet(tmp_path / "data/more/train-1.parquet", good_rows(12)[9:])
    found = listed(tmp_path / "data", tmp_path / "list", hold_out=0.3)
    assert (found.rows, found.pairs, found.questions, found.set_aside) == (12, 12, 16, {})
    assert [file.path for file in found.files] == ["more/train-1.parquet", "train-0.parquet"]
    pairs = WebPairs(tmp_path / "list")
    assert len(pairs) == 12
    assert int(pairs.held_out_N.sum()) == found.held_out
    assert 0 < found.held_out < 12
    for place in range(12):
        number = (9 + place) if place < 3 else place - 3  # the deeper file comes first
        assert pairs.image(place).shape == (*pairs.sizes_N2[place], 3)
        assert pairs.texts(place)[0][0] == "Which colour is it?", "the mark of the image is no part of the question"
        assert pairs.question_counts_N[place] == (2 if number % 3 == 0 else 1)
    texts = [sum(len(text.encode()) for side in pairs.texts(place) for text in side) for place in range(12)]
    assert pairs.text_bytes().tolist() == texts


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_rows_of_llava_name_files(tmp_path, suffix):
    path = write_llava(tmp_path / "llava", 4)
    if suffix == ".jsonl":
        lines = "\n".join(json.dumps(row) for row in json.loads(path.read_text()))
        path.unlink()
        path = path.with_suffix(suffix)
        path.write_text(lines + "\n")
    found = listed(path.parent, tmp_path / "list")
    assert (found.rows, found.pairs) == (4, 4)
    pairs = WebPairs(tmp_path / "list")
    assert pairs.texts(2) == (("Name the colour of 2.",), ("blue",))
    assert pairs.image(2)[20, 20].tolist() == pytest.approx([30, 40, 220], abs=8)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("llava", "list"):
        (tmp_path / name).rename(moved / name)
    assert np.array_equal(WebPairs(moved / "list").image(2), pairs_image(moved / "llava/images/2.jpg")), "both may move together"


def pairs_image(path: Path) -> np.ndarray:
    return checks.decoded(path.read_bytes())


def test_each_wrong_row_is_set_aside_with_its_reason(tmp_path):
    image, asked = {"bytes": picture("red"), "path": None}, turns("Which?", "Red.")
    wrong = {
        checks.NO_CONVERSATION: {"image": image, "conversations": None},
        checks.OTHER_SPEAKERS: {"image": image, "conversations": {"from": ["gpt", "human"], "value": ["Red.", "Which?"]}},
        checks.NO_TEXT: {"image": image, "conversations": turns("<image>", "Red.")},
        checks.INNER_IMAGE: {"image": image, "conversations": turns("Is <image> red?", "Yes.")},
        checks.RESERVED: {"image": image, "conversations": turns("Which?", "Red.<|endoftext|>")},
        checks.ROBOT: {"image": image, "conversations": asked, "annotation": "[[1, 2], [3, 4]]"},
        checks.NO_IMAGE: {"image": {"bytes": None, "path": None}, "conversations": asked},
        checks.ADDRESS: {"image": {"bytes": None, "path": "https://example.org/a.png"}, "conversations": asked},
        checks.OUTSIDE: {"image": {"bytes": None, "path": "../secret.png"}, "conversations": asked},
        checks.SIZE: {"image": {"bytes": picture("red", (4, 90)), "path": None}, "conversations": asked},
        checks.UNREADABLE: {"image": {"bytes": picture("red")[:60], "path": None}, "conversations": asked},
    }
    (tmp_path / "secret.png").write_bytes(picture("red"))
    rows = [{"annotation": None, **row} for row in wrong.values()]
    twice = {"image": image, "conversations": asked, "annotation": None}
    write_parquet(tmp_path / "data/rows.parquet", [*rows, twice, twice])
    found = listed(tmp_path / "data", tmp_path / "list")
    assert (found.rows, found.pairs) == (len(wrong) + 2, 1)
    assert found.set_aside == dict.fromkeys([*wrong, checks.TWICE], 1)
    lines = [json.loads(line) for line in (tmp_path / "list" / ASIDE).read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in lines] == [*enumerate(wrong), (len(wrong) + 1, checks.TWICE)]
    assert all(line["file"] == "rows.parquet" for line in lines)
    assert "<|endoftext|>" in next(line["detail"] for line in lines if line["reason"] == checks.RESERVED)


def test_what_is_no_pair_at_all_is_told_before_anything_is_listed(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"expected Parquet files.*got none.*Fix:"):
        listed(tmp_path / "empty", tmp_path / "list")
    write_parquet(tmp_path / "other/rows.parquet", [{"picture": b"", "conversations": turns("a", "b")}])
    with pytest.raises(DatasetError, match=r"image is missing \(it has picture, conversations\)"):
        listed(tmp_path / "other", tmp_path / "list")
    write_parquet(tmp_path / "wrong/rows.parquet", [{"image": b"nothing", "conversations": turns("a", "b")}])
    with pytest.raises(DatasetError, match=r"none of 1 rows .*1 x the image cannot be read"):
        listed(tmp_path / "wrong", tmp_path / "list")
    (tmp_path / "torn.jsonl").write_text('{"image": "a.png"')
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        listed(tmp_path / "torn.jsonl", tmp_path / "list")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        listed(tmp_path / "torn.parquet", tmp_path / "list")
    assert not (tmp_path / "list" / LISTING).exists()
    assert not (tmp_path / "list" / ROWS).exists()
    with pytest.raises(DatasetError, match=r"no listing .*Fix: make one, `actwright data web"):
        read_listing(tmp_path / "list")


def test_files_that_changed_after_listing_are_refused(tmp_path):
    data, out = write_parquet(tmp_path / "data/rows.parquet", good_rows(3)), tmp_path / "list"
    listed(data.parent, out)
    with pytest.raises(DatasetError, match="has a listing already"):
        listed(data.parent, out)
    whole = data.read_bytes()
    data.write_bytes(whole + b" ")
    with pytest.raises(DatasetError, match=rf"expected the {len(whole):,} bytes that were listed, got {len(whole) + 1:,}"):
        WebPairs(out)
    other = good_rows(3)
    other[1]["image"] = other[2]["image"]
    write_parquet(data, other)
    document = json.loads((out / LISTING).read_text())
    document["files"][0]["bytes"] = data.stat().st_size
    (out / LISTING).write_text(json.dumps(document))
    pairs = WebPairs(out)
    assert pairs.image(0).shape == (40, 40, 3)
    with pytest.raises(DatasetError, match=r"row 1: the image is not the one that was listed"):
        pairs.image(1)
    (out / ROWS).write_bytes((out / ROWS).read_bytes() + b" ")
    with pytest.raises(DatasetError, match="is not what was listed: expected sha256"):
        WebPairs(out)


def command_line() -> typer.Typer:
    app = typer.Typer()
    add_data(app)
    return app


def test_the_command_says_what_it_found(tmp_path):
    rows = [*good_rows(5), {"image": {"bytes": b"no", "path": None}, "conversations": turns("a", "b")}]
    write_parquet(tmp_path / "data/rows.parquet", rows)
    done = CliRunner().invoke(command_line(), ["data", "web", str(tmp_path / "data"), "--out", str(tmp_path / "colours")])
    assert done.exit_code == 0, done.output
    assert "6 rows in 1 files: 5 pairs with 7 questions listed in" in done.output
    assert "1 set aside: the image cannot be read" in done.output
    assert "train.published.web=[" in done.output
