"""What people who watch cost the cells that they watch: p99 of decisions, holds and late answers, on the same two cores.

Four cells in real time (20 Hz, strict driver, two cameras) ask one policy service (the stub policy, which answers after a fixed time) ten
times a second each, and show each decision's pictures in one console. Three sides take turns in one run: no readers (the peer); four
headless readers, each of which takes one cell's live stream and both pictures of every decision that it names; and, besides these four, a
flood: clients that ask the console for its lists and pictures as fast as it answers. With --kill a fourth side has the four readers and a
console that is killed (SIGKILL) amid the episodes. Every cell has to finish its episode on each side,
and its driver, which checks every command, has to accept all of them. Every step of the cells' audits is read: an arm waits for the first
answer of an episode, which is counted apart; a step held later is one that readers may have cost.

Run: python benchmarks/console_readers.py [--blocks 3] [--steps 200]      writes benchmarks/results/console_readers.json
     python benchmarks/console_readers.py --kill                          writes benchmarks/results/console_killed.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "console_readers.json"
KILL_RESULT = RESULT.with_name("console_killed.json")
CELLS, READERS, FLOODERS, SIZE, HZ = 4, 4, 8, 128, 20
NAMES = [f"cell-{i}" for i in range(CELLS)]
SIDES = ("no readers", "four readers", "flood")
KILLED = "console killed"
GOALS = {"four readers": 1.3, "flood": 1.8}


@contextmanager
def running(argv: list[str], ready: str, **environment: str) -> Iterator[int]:
    """A server process that answers at `ready`; gives its id."""
    with subprocess.Popen([sys.executable, "-m", *argv], cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL) as process:
        try:
            give_up_at = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(ready, timeout=2).close()
                    break
                except OSError:
                    assert time.monotonic() < give_up_at, f"{argv} does not answer"
                    time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()


def read_live(console: str, cell: str, counts: dict[str, int]) -> None:
    """One headless reader: every event, and the pictures of every decision that it names."""
    while True:
        try:
            with urllib.request.urlopen(f"{console}/api/cells/{cell}/live", timeout=10) as stream:
                for line in stream:
                    update = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                    counts["events"] += bool(update)
                    number = (update.get("decision") or {}).get("number")
                    for camera in ("front", "wrist") if number else ():
                        with urllib.request.urlopen(f"{console}/api/cells/{cell}/pictures/{number}/{camera}", timeout=10) as picture:
                            counts["pictures"] += bool(picture.read())
        except OSError:
            time.sleep(0.05)  # the cell has not shown itself yet, or a picture was already replaced


def flood(console: str, at: int, counts: dict[str, int]) -> None:
    """One client that asks without a pause; whatever status comes is an answer."""
    paths = ("/api/cells", f"/api/cells/{NAMES[at % CELLS]}/pictures/1/front", "/api/models", "/api/trials", "/")
    while True:
        for path in paths:
            with suppress(OSError):
                urllib.request.urlopen(console + path, timeout=10).read()
            counts["requests"] += 1


def load(console: str, side: str) -> None:
    """The process of all readers of one side, until its input ends; prints what they got."""
    counts = dict.fromkeys(("events", "pictures", "requests"), 0)
    for at in range(READERS):
        threading.Thread(target=read_live, args=(console, NAMES[at % CELLS], counts), daemon=True).start()
    for at in range(FLOODERS if side == "flood" else 0):
        threading.Thread(target=flood, args=(console, at, counts), daemon=True).start()
    sys.stdin.read()
    print(json.dumps(counts), flush=True)
    os._exit(0)


def block(folder: Path, service: str, console: tuple[str, int], turn: tuple[str, int], steps: int) -> dict[str, float]:
    """One episode of every cell. console: its address and process. turn: side and number."""
    side, number = turn
    cells = [subprocess.Popen(_cell(folder, service, name, steps, folder / side / str(number) / name), cwd=ROOT) for name in NAMES]
    readers = None
    if side != SIDES[0]:
        command = [sys.executable, __file__, "--load", side, "--console", console[0]]
        readers = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    used_s = _cpu_s(console[1])
    if side == KILLED:
        time.sleep(0.4 * steps / HZ)
        os.kill(console[1], signal.SIGKILL)
    assert [cell.wait(600) for cell in cells] == [0] * CELLS
    used_s = 0.0 if side == KILLED else _cpu_s(console[1]) - used_s
    got = json.loads(readers.communicate("")[0]) if readers else {}
    held = [held_steps(folder / side / str(number) / name) for name in NAMES]
    told = [json.loads((folder / f"{name}.json").read_text()) for name in NAMES]
    assert all([row["steps"] for row in one["rows"]] == [steps] for one in told), "each cell finishes its episode"
    return {
        "p99_ms": round(max(one["p99_ms"] for one in told), 1),
        "p50_ms": round(median(one["p50_ms"] for one in told), 1),
        "held_before_first_answer": sum(before for before, _ in held),
        "held_later": sum(later for _, later in held),
        "late": sum(one["late_dropped"] for one in told),
        "refusals": sum(one["refusals"] for one in told),
        "decisions": sum(one["decisions"] for one in told),
        "console_cpu_s": round(used_s, 1),
        **got,
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def held_steps(audit: Path) -> tuple[int, int]:
    """Of the one episode that is audited there: steps that were held before its first row was executed, and after that."""
    from components.artifacts.audit_files import read_audit
    from model_core.spec.audit.format import SUFFIX, Kind

    [path] = audit.rglob(f"*{SUFFIX}")
    is_held = [record.body["row"] < 0 for record in read_audit(path).of(Kind.EXECUTED)]
    first = is_held.index(False)
    return first, sum(is_held[first:])


def _cell(folder: Path, service: str, name: str, steps: int, audit: Path) -> list[str]:
    options = {
        "--robot": "serving.workcell.robot.strict_driver:make_robot",
        "--task": "watched",
        "--url": service.replace("http", "ws") + "/v1/session",
        "--cell": name,
        "--result": str(folder / f"{name}.json"),
        "--strategy": "async",
        "--execute-horizon": "2",
        "--deadline-ms": "1000",
        "--console": str(folder / "home" / "cells" / name),
        "--audit": str(audit),
    }
    robot = [f"contract={folder / 'contract.json'}", f"steps={steps}"]
    words = [word for pair in options.items() for word in pair] + [word for one in robot for word in ("--robot-option", one)]
    return [sys.executable, "-m", "serving.workcell", "--realtime", *words]


def sides_in_turn(sides: Sequence[str], blocks: int, steps: int) -> dict[str, list[dict[str, float]]]:
    """Blocks of each side, by turns, over one policy service and a console that is started again where it was killed."""
    from components.adapters.processes import free_port
    from serving.gateway.inference.stub_policy import stub_contract

    service, console = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "contract.json").write_text(json.dumps(stub_contract(cameras=2, size=SIZE).to_json()))
        stub = ["serving.gateway", "--stub", "0.03", "--stub-cameras", "2", "--stub-size", str(SIZE), "--port", service.rpartition(":")[2]]
        shown = ["flows.commands.main", "console", "--port", console.rpartition(":")[2]]
        stack.enter_context(running(stub, f"{service}/readyz"))

        def start_console() -> int:
            return stack.enter_context(running(shown, f"{console}/livez", ACTWRIGHT_HOME=str(folder / "home")))

        pid = start_console()
        for number in range(blocks):
            for side in sides if number % 2 == 0 else reversed(sides):
                found[side].append(block(folder, service, (console, pid), (side, number), steps))
                pid = start_console() if side == KILLED else pid
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kill", action="store_true", help="no readers beside a console that is killed")
    parser.add_argument("--load", choices=(*SIDES, KILLED), help=argparse.SUPPRESS)
    parser.add_argument("--console", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load(args.console, args.load)
    from benchmarks.measuring import conditions, scheduling

    began, load_before = perf_counter(), os.getloadavg()
    sides = (SIDES[0], KILLED) if args.kill else SIDES
    found = sides_in_turn(sides, args.blocks, args.steps)
    p99 = {side: median(one["p99_ms"] for one in found[side]) for side in sides}
    result = {
        "conditions": conditions(load_before, began),
        "scheduling": scheduling(),
        "cells": CELLS,
        "readers": READERS,
        "flooding_clients": 0 if args.kill else FLOODERS,
        "steps": args.steps,
        "sides": found,
        "held_later": {side: sum(one["held_later"] for one in found[side]) for side in sides},
        "late": {side: sum(one["late"] for one in found[side]) for side in sides},
        "p99_ms": p99,
        "p99_ratio": {side: {"is": round(p99[side] / p99[SIDES[0]], 3), "goal": goal} for side, goal in GOALS.items() if side in sides},
    }
    (KILL_RESULT if args.kill else RESULT).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
