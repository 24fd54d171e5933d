"""The command line: one JSON line on stdout, people on stderr, exit codes that mean something, wrong usage that says what to type."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from flows.commands.bench.runs import chosen_checkpoint
from flows.commands.main import PARTS, command_line
from flows.commands.operations.schedule import Pulse, check_cron
from flows.pipeline.recipes import RECIPES, get_recipe
from flows.terminal.output import DONE, HELD, OUR_ERROR, WRONG_USAGE, ended
from model_core.spec.errors import DatasetError, GateError, SpecError
from tests.faults.fork_server import ForkServer


@pytest.fixture(scope="module")
def commands() -> Iterator[ForkServer]:
    """Runs commands in forks of one process, where the command is the claim and not its start."""
    with ForkServer(imported=("flows.commands.main", "flows.pipeline.recipes", *(part.module for part in PARTS))) as running:
        yield running


def actwright(*words: str, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.commands.main import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("runn",), "Did you mean 'run'"),
        (("run", "lop"), "did you mean 'loop'"),
        (("run", "loop", "--st", "a=1"), "--set"),
        (("run", "loop", "--set", "train.stps=1"), "did you mean steps?"),
        (("run", "loop", "--set", "train.steps"), "write FIELD=VALUE"),
        (("recipe", "loop", "--set", "train.global_batch=50"), "use 48 or 96"),
        (("run", "loop", "--set", "train.init_from=/nowhere"), "train.init_from /nowhere: expected the folder of a checkpoint"),
        (("recipe", "loop", "--set", "train.network=tyni"), "did you mean 'tiny'"),
        (("recipe", "nowhere.json"), "write one with `actwright recipe loop --out nowhere.json`"),
        (("data", "colect"), "Did you mean 'collect'"),
        (("ingest", "--recipe", "lop"), "did you mean 'loop'"),
        (("schedule", "--cron", "daily"), "minute hour day month weekday, such as '0 3 * * *'"),
        (("seeds", "--count", "0"), "greater than or equal to 1"),
        (("seeds", "--set", "train.stepz=3"), "did you mean steps"),
        (("approve",), "for example: actwright approve list"),
        (("show",), "for example: actwright show train"),
        (("probe",), "for example: actwright probe http://127.0.0.1:3000"),
        (("probe", "127.0.0.1:3"), "type: actwright probe http://127.0.0.1:3"),
        (("model", "inspect"), "for example: actwright model inspect"),
    ],
)
def test_wrong_usage_says_what_to_type(commands, tmp_path, words, hint):
    done = commands.run(*words, under=tmp_path)
    assert done.code == WRONG_USAGE
    assert hint in " ".join(done.told.split())
    assert done.said == ""
    assert "Traceback" not in done.told


def test_a_recipe_is_one_json_line_and_can_be_run_from_its_file(tmp_path):
    path = tmp_path / "mine.json"
    done = actwright("recipe", "loop", "--set", "train.seed=3", "--out", str(path))
    assert done.returncode == DONE
    told = json.loads(done.stdout)
    assert get_recipe(str(path)).train.seed == 3
    assert get_recipe(str(path)).digest == told["digest"] != get_recipe("loop").digest


def test_a_recipe_that_is_no_text_and_a_place_that_takes_none_are_told(tmp_path):
    noise = tmp_path / "noise.json"
    noise.write_bytes(bytes(range(128, 256)))
    with pytest.raises(SpecError, match=r"noise\.json is not JSON"):
        get_recipe(str(noise))
    folder = tmp_path / "folder"
    folder.mkdir()
    done = actwright("recipe", "loop", "--out", str(folder))
    assert done.returncode == OUR_ERROR
    assert "folder cannot be used as it was named" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [folder, noise]


@pytest.mark.parametrize("cron", ["x x x x x", "99 * * * *"])
def test_a_cron_that_cannot_be_is_refused_before_anything_starts(cron):
    with pytest.raises(SpecError, match="minute hour day month weekday"):
        check_cron(cron)
    check_cron("0 3 * * 1-5")


def test_a_schedule_notices_that_its_server_is_gone():
    now, up = [0.0], [True]
    pulse = Pulse("http://prefect", ask=lambda _: up[0], clock=lambda: now[0])

    def silent_at(second: float) -> float:
        now[0] = second
        return pulse.silent_s()

    assert [silent_at(s) for s in (1, 6, 12)] == [0, 0, 0]
    up[0] = False
    assert [silent_at(s) for s in (13, 18, 25)] == [0, 6, 13]
    up[0] = True
    assert silent_at(31) == 0


def test_a_folder_that_is_no_checkpoint_is_told_what_it_lacks(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SpecError, match=r"has no contract\.json"):
        chosen_checkpoint(tmp_path)


def test_before_the_first_run_there_is_a_way_to_begin(tmp_path):
    done = actwright("report", cwd=tmp_path)
    assert done.returncode == OUR_ERROR
    assert "begin with `actwright run`" in done.stderr


def test_every_help_teaches_with_an_example():
    app = command_line()
    groups = [app, *(g.typer_instance for g in app.registered_groups)]
    commands = [c for group in groups for c in group.registered_commands]
    assert len(commands) > 20
    silent = [c.callback.__name__ for c in commands if "actwright" not in (c.callback.__doc__ or "")]
    assert not silent


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.add)
def test_the_first_word_brings_the_commands_of_its_part_and_no_others(part):
    for word in part.words:
        only = typer.main.get_command(command_line(word))
        assert isinstance(only, TyperGroup)
        assert sorted(only.commands) == sorted(part.words)


@pytest.mark.parametrize("width", [80, 300])
def test_the_list_of_commands_is_that_of_the_commands_themselves(width):
    """A new command needs its sentence in `flows.commands.overview.OVERVIEW`."""
    listed, real = (CliRunner().invoke(command_line(first), ["--help"], terminal_width=width).output for first in ("--help", ""))
    assert listed == real


def test_without_a_known_word_every_command_is_there():
    every = typer.main.get_command(command_line("rnu"))
    assert isinstance(every, TyperGroup)
    assert sorted(every.commands) == sorted(word for part in PARTS for word in part.words)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GateError("a blind model"), HELD, "held: a blind model"),
        (DatasetError("shards are torn"), OUR_ERROR, "dataset error: shards are torn"),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (SystemExit(130), 130, "run the same command again"),
    ],
)
def test_errors_of_ours_are_one_message(error, code, said, capsys):
    def fails() -> None:
        raise error

    assert ended(fails) == code
    assert said in capsys.readouterr().err


def test_errors_that_are_not_ours_keep_their_traceback():
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ended(fails)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_and_says_what_it_is(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe == type(recipe).from_json(json.loads(json.dumps(recipe.to_json())))
