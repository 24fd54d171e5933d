"""The exchange with a running Label Studio: frames out by its API, opinions in, each once; refusals with what to do."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from components.data.second_labels import label_studio_server
from components.data.second_labels.label_studio_server import LabelStudio
from flows.commands.main import command_line
from model_core.spec.errors import NotReady, SpecError
from tests.episodes import episode, write_dataset
from tests.label_studio import LEGACY, PERSONAL, served_label_studio

POINT = [{"type": "keypointlabels", "value": {"x": 25.0, "y": 50.0, "width": 0.5, "keypointlabels": ["gripper"]}}]
SKIP = [{"type": "choices", "value": {"choices": ["cannot tell"]}}]


@pytest.fixture(scope="module")
def studio():
    with served_label_studio() as running:
        yield running


def test_frames_go_out_and_opinions_come_in_once(tmp_path, monkeypatch, studio):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACTWRIGHT_DATA", str(tmp_path / "data"))
    write_dataset(tmp_path / "pick", [episode(n, length=12) for n in range(2)])
    token = tmp_path / "token"
    token.write_text(f"{PERSONAL}\n")
    to = ["--server", studio.url, "--token-file", str(token)]

    def run(*words: str):
        done = CliRunner().invoke(command_line("episodes"), ["episodes", *words])
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout.splitlines()[-1])

    monkeypatch.setattr(label_studio_server, "_MOST_BYTES", 3000)  # several imports
    sent = run("label-send", str(tmp_path / "pick"), *to, "--frames", "5")
    assert sent["tasks"] == 5
    tasks = studio.projects[sent["project"]]["tasks"]
    assert len({(task["data"]["episode"], task["data"]["frame"]) for task in tasks}) == 5
    assert all(
        set(task["data"]) == {"image", "episode", "camera", "frame", "width", "height"} for task in tasks
    )  # blind to the first label
    studio.label(sent["project"], 0, POINT)
    studio.label(sent["project"], 3, SKIP)
    fetch = ("label-fetch", str(tmp_path / "pick"), *to, "--project", str(sent["project"]))
    assert run(*fetch) == {"opinions": 2, "added": 2}
    assert run(*fetch) == {"opinions": 2, "added": 0}


def test_what_the_server_refuses_is_told_without_the_token(studio):
    with pytest.raises(NotReady, match=r"status 401.*--token-file") as refused:
        LabelStudio(studio.url, "guessed").add_project("a")
    assert "guessed" not in str(refused.value)
    with pytest.raises(NotReady, match="status 401"):
        LabelStudio(studio.url, "one.wrong.token")
    with pytest.raises(NotReady, match="status 404"):
        LabelStudio(studio.url, LEGACY).finished(99)
    with pytest.raises(NotReady, match="does not answer"):
        LabelStudio("http://127.0.0.1:9", LEGACY).finished(1)
    with pytest.raises(SpecError, match="expected an address"):
        LabelStudio("127.0.0.1:8080", LEGACY)
