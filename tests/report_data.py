"""A made-up run of the loop with pictures and curves, for the tests of the report (and for looking at it)."""

import json
import math
from dataclasses import replace

import numpy as np

from components.config.recipe import GateConfig
from components.config.records import (
    AccountRow,
    DatasetVersion,
    Dropped,
    EvalReport,
    Interval,
    ModelVersion,
    RolloutRow,
    RunSummary,
    StageTiming,
    TaskScore,
    TrainRun,
    WorkcellRow,
)
from components.drawing.images import Panel, example_sheet, rollout_strip, save_png
from components.evaluation.gate import gate
from components.evaluation.intervals import wilson
from model_core.spec.types import Trace

TASKS = {"coffee-button-v3": 18, "drawer-close-v3": 20}


def scene(t, size=80):
    """A table with a box and a gripper that comes nearer with t in 0..1: (image, depth, path of the gripper)."""
    y, x = np.mgrid[0:size, 0:size] / size
    depth = 1.6 - 0.7 * y
    image = np.stack([150 + 70 * y, 120 + 60 * y, 95 + 40 * y], -1)
    box = (abs(x - 0.68) < 0.13) & (abs(y - 0.62) < 0.14)
    image[box], depth[box] = (60, 92, 150), 0.75
    gx, gy = 0.2 + 0.42 * t, 0.15 + 0.3 * t
    hand = (abs(x - gx) < 0.05) & (y < gy)
    image[hand], depth[hand] = (205, 60, 60), 0.6
    ends = np.linspace(t, 1.0, 5)
    path = np.stack([255 * (0.2 + 0.42 * ends), 255 * (0.15 + 0.3 * ends + 0.05 * np.sin(3 * ends))], -1)
    return image.astype(np.uint8), depth, Trace(points_N2=np.rint(path).astype(np.int64))


def panels(count, step=8):
    made = []
    for i in range(count):
        image, depth, trace = scene(i / max(1, count - 1))
        shaken = Trace(points_N2=np.clip(trace.points_N2 + np.array([6, -7]), 0, 255))
        coarse = np.kron(depth[4::8, 4::8], np.ones((8, 8)))
        made.append(Panel(image_HW3=image, caption=f"step {step * i}", predicted=shaken, true=trace, depth_HW=coarse, true_depth_HW=depth))
    return made


def report():
    def scored(s, n):
        low, high = wilson(s, n)
        return TaskScore(successes=s, trials=n, interval=Interval(low=low, high=high))

    rows = [
        RolloutRow(
            task=task,
            seed=930_000 + i,
            success=i < solved,
            stop_reason="success" if i < solved else "max_steps",
            steps=40 + 3 * i if i < solved else 125,
            decisions=6 + i,
            refusals=0,
            detail="" if i < solved else "the horizon passed without the task's success flag",
        )
        for task, solved in TASKS.items()
        for i in range(20)
    ]
    total = scored(38, 40)
    return EvalReport(
        checkpoint_digest="c0ffee" * 10 + "0000",
        contract_id="0123456789abcdef",
        successes=38,
        trials=40,
        interval=total.interval,
        per_task={task: scored(solved, 20) for task, solved in TASKS.items()},
        episodes=tuple(rows),
        blindness={"image_swap_change": 0.83},
    )


def run_summary(root, *, promote=True):
    """A whole run whose stage folders lie under `root`."""
    folders = {stage: root / stage for stage in ("validate", "train", "evaluate")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["evaluate"] / "film").mkdir()
    for task in TASKS:
        save_png(
            rollout_strip([replace(panel, true=None, true_depth_HW=None) for panel in panels(12)], title=f"{task}, seed 930000: solved"),
            folders["evaluate"] / "film" / f"{task}.png",
        )
    save_png(example_sheet(panels(6)), folders["evaluate"] / "undigested" / "examples" / "step_1200.png")
    lines = []
    for step in range(1200):
        noise = 0.15 * math.sin(step * 12.9898) * math.exp(-step / 900)
        parts = {
            "loss_depth": 4.2 * math.exp(-step / 500),
            "loss_trace": 3.1 * math.exp(-step / 350) + 0.8,
            "loss_action": 3.9 * math.exp(-step / 420) + 0.9,
        }
        lines.append({"step": step, "loss": sum(parts.values()) / 3 + noise, **parts})
        if step % 200 == 199:
            lines.append({"step": step, "validation_loss": lines[-1]["loss"] * 1.04})
    (folders["train"] / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    quarantine = folders["validate"] / "quarantine"
    quarantine.mkdir()
    found = {
        "episode_id": "drawer-close-v3-10017",
        "findings": [{"check": "frozen", "where": "front", "reason": "31 equal frames while moving, at most 10"}],
    }
    (quarantine / "drawer-close-v3-10017.json").write_text(json.dumps(found))
    evaluation = report()
    verdict = gate(GateConfig(floor=0.5 if promote else 0.9), evaluation, None)
    seconds = {"collect": 143.2, "validate": 12.1, "annotate": 64.0, "freeze": 5.2, "train": 402.9, "evaluate": 98.4, "gate": 0.31}
    seconds |= {"package": 14.8, "workcells": 41.5, "report": 0.9}
    return RunSummary(
        name="loop-0007",
        recipe_name="loop",
        recipe={"name": "loop", "gate": {"floor": 0.5}, "train": {"steps": 1200}},
        stages={
            name: StageTiming(
                seconds=s if name not in ("collect", "validate") else s / 200, cached=name in ("collect", "validate"), digest="ab" * 32
            )
            for name, s in seconds.items()
        },
        dataset=DatasetVersion(
            version="5eed" * 16,
            name="loop",
            episodes=599,
            frames=21_482,
            quarantined=1,
            train_frames=20_400,
            validation_frames=1_082,
            contract_id="0123456789abcdef",
            annotators={"depth": "truth/1", "points": "truth/1"},
            parents=("feed" * 16,),
        ),
        train=TrainRun(
            run_id="train-3f2a9c",
            dataset_version="5eed" * 16,
            recipe_digest="dada" * 16,
            checkpoint_digest=evaluation.checkpoint_digest,
            steps=1200,
            final_loss=1.1834,
            metrics={"validation_loss": 1.2213, "action_accuracy": 0.412},
        ),
        evaluation=evaluation,
        verdict=verdict,
        model_version=ModelVersion(
            name="actwright",
            version=3,
            contract_id="0123456789abcdef",
            checkpoint_digest=evaluation.checkpoint_digest,
            dataset_version="5eed" * 16,
            alias="champion" if promote else "candidate",
            replaced="2" if promote else "",
            bento="actwright-policy:3f2a9c" if promote else "",
            lineage={"code_commit": "4a5b6c7d" * 5},
        ),
        workcells=(
            WorkcellRow(
                cell="cell-0", task="coffee-button-v3", episodes=5, successes=5, decisions=41, refusals=0, p50_ms=38.2, p99_ms=61.9
            ),
            WorkcellRow(
                cell="cell-1", task="drawer-close-v3", episodes=5, successes=4, decisions=52, refusals=1, p50_ms=37.7, p99_ms=70.4, holds=2
            ),
        )
        if promote
        else (),
        paths={stage: str(folder) for stage, folder in folders.items()},
        account=(
            AccountRow(stage="collect", source="expert:metaworld", episodes=600, frames=21_500),
            AccountRow(
                stage="annotate",
                source="teleop:<bench>",
                episodes=1,
                frames=240,
                dropped=(Dropped(reason="no depth was recorded", episodes=5, frames=1_200),),
            ),
        ),
        notes=("action 'gripper': 5 of 1000 steps hold values of 1..1",),
    )
