"""The road of a team with recordings: sets of `tests/data/public_writers`, what a person answers about them, and recipes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from components.config.data_config import AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import EvalConfig, GateConfig, PackageConfig, Recipe
from components.config.source_config import SourceConfig
from components.config.train_config import TrainConfig
from components.data.embodiments.file import read_file
from flows.commands.main import command_line

SETS = Path(__file__).parent / "data" / "public_writers"
# what a person knows of the robot and its README says, and no number of the sets: place in the file -> answer
OF_BOTH = {"proprio, frame": "world", "action, frame": "world", "rotation": "euler-xyz", "action, dims 'gripper', mode": "absolute"}
OF_BOTH |= {f"proprio, dims '{angle}', unit": "rad" for angle in ("roll", "pitch", "yaw")}
OF_BOTH |= {"confirmed, by": "A. Tester", "confirmed, on": "2026-11-29"}
ANSWERS: Mapping[str, Mapping[str, str]] = {
    "v21": {"action, mode": "delta", "gripper, open": "-1"}
    | {f"action, dims '{angle}', unit": "normalised" for angle in ("roll", "pitch", "yaw")},
    "v30": {"gripper, open": "1"} | {f"action, dims '{angle}', unit": "rad" for angle in ("roll", "pitch", "yaw")},
}
NETWORK = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2, "feed_forward": 128, "projector": 64, "stem": [8, 16, 32]}


def command(*words: object) -> dict[str, Any]:
    """Run a command in this process; the document that it prints. Raises what the command raises."""
    done = CliRunner().invoke(command_line(str(words[0])), [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def answer(draft: Path, answers: Mapping[str, str]) -> list[str]:
    """Do what a person does with a draft: write `value: ANSWER` in place of each line `confirm: ...`. Returns the places answered."""
    lines = draft.read_text(encoding="utf-8").splitlines()
    items = read_file(draft).open_items
    for item in items:
        written = lines[item.line - 1]
        assert written.strip().startswith("confirm:"), written
        lines[item.line - 1] = written[: written.index("confirm:")] + f"value: {answers[item.place]}"
    draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [item.place for item in items]


def described(name: str, root: Path) -> Path:
    """The set's embodiment file: drafted, answered, signed and checked, by the commands."""
    path = root / f"{name}.yaml"
    drafted = command("embodiment", "draft", SETS / name, "--out", path)
    places = answer(path, {**OF_BOTH, **ANSWERS[name]})
    assert len([place for place in places if not place.startswith("confirmed")]) == drafted["open"] > 0
    checked = command("embodiment", "check", path, SETS / name)
    assert checked["contradictions"] == []
    assert checked["open"] == 0
    return path


def write_kinematics(folder: Path) -> Path:
    """kinematics.yaml of v30: the tool centre stands in its state, and its cameras are calibrated."""
    import yaml

    cameras: dict[str, Any] = {}
    for name, camera in json.loads((SETS / "v30_calibration.json").read_text())["cameras"].items():
        (fx, _, cx), (_, fy, cy), _ = camera["intrinsics"]
        pose_44 = np.linalg.inv(np.array(camera["world_to_camera"]))
        pose_44[3] = (0, 0, 0, 1)
        cameras[name] = {"width": camera["width"], "height": camera["height"], "fx": fx, "fy": fy, "cx": cx, "cy": cy}
        cameras[name] |= {"pose": pose_44.tolist(), "calibrated_by": "v30_calibration.json"}
    folder.mkdir()
    document = {"format": 1, "tool_centre": {"source": "state", "dims": ["x", "y", "z"]}, "cameras": cameras}
    (folder / "kinematics.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def recipe_of(name: str, embodiment: Path, annotate: AnnotateConfig, **changes: Any) -> Recipe:
    """A recipe that trains a tiny policy on a set. changes: sections, each a mapping of fields, and `include` of the source."""
    level = annotate.levels[0]
    source = SourceConfig(name="bench", path=str(SETS / name), embodiment=str(embodiment), include=tuple(changes.pop("include", ())))
    made = Recipe(
        name=f"road-{name}",
        data=(source,),
        validate=ValidateConfig(data_docs=False),
        annotate=annotate,
        freeze=FreezeConfig(name=f"road-{name}", validation_fraction=0.2, chunk_length=2, execute_horizon=2),
        train=TrainConfig(network=NETWORK, steps=500, global_batch=32, micro_batch=32, warmup_steps=50, learning_rate=3e-3, threads=1),
        evaluate=EvalConfig(reasoning=level, image_swap_frames=16, min_image_swap_change=0.0, execute_horizon=2),  # pyright: ignore[reportArgumentType]
        gate=GateConfig(max_open_loop_error=0.5, min_image_swap_change=0.5),
        package=PackageConfig(model_name=f"road-{name}", reasoning=level, golden_probes=2),  # pyright: ignore[reportArgumentType]
    )
    return replace(made, **{section: replace(getattr(made, section), **fields) for section, fields in changes.items()})


def write_recipe(made: Recipe, root: Path) -> Path:
    """The recipe as a file, which commands take."""
    path = root / f"{made.name}.json"
    path.write_text(json.dumps(made.to_json()))
    return path
