"""What other tools find of the injected faults: each fault once, on the first kind of set that can have it.

Run: .venv/bin/python -m tests.data_faults.peers_table ENVIRONMENT     writes benchmarks/results/inspection_peers.json, fault by fault

ENVIRONMENT is a virtual environment with the tools of `tests.data_faults.peers`. A tool finds a fault where it reports something as a
warning or worse that it does not report of the sound set. A run that was stopped goes on where it ended. `tests.data_faults.table` reads
what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_core.spec.files import atomic_write
from tests.data_faults.clean_sets import KINDS, clean_set
from tests.data_faults.faults import all_faults
from tests.data_faults.interface import NotApplicable, blind_faults
from tests.data_faults.made_set import write_made_set
from tests.data_faults.peers import Peer, findings_of, peers, running
from tests.data_faults.table import PEERS, inject
from tests.data_faults.warm_program import WarmProgram


def faults_once(done: set[str], work: Path) -> Iterator[tuple[str, str, Path]]:
    """(fault, kind, folder with it) of every fault that is not done."""
    for fault in all_faults():
        if fault.name not in done:
            yield fault.name, fault.kinds[0], inject(fault, fault.kinds[0], work / fault.name)
    for blind in blind_faults():
        for kind in KINDS if blind.name not in done else ():
            root = write_made_set(work / f"{blind.name}-{kind}", clean_set(kind))
            try:
                blind.inject(root, 0)
            except NotApplicable:
                continue
            yield blind.name, kind, root
            break


def found(peer: Peer, program: WarmProgram, root: Path, sound: dict[str, dict[str, list[str]]], kind: str) -> list[str]:
    """What the tool reports of a folder and not of the sound set of its kind."""
    mine = sound.setdefault(kind, {})
    if peer.name not in mine:
        with tempfile.TemporaryDirectory() as folder:
            mine[peer.name] = sorted(findings_of(peer, program, write_made_set(Path(folder) / "set", clean_set(kind))))
    return sorted(findings_of(peer, program, root) - set(mine[peer.name]))


def main() -> None:
    """Ask every tool about every fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="a virtual environment with the tools")
    parser.add_argument("--out", type=Path, default=PEERS)
    args = parser.parse_args()
    use = peers(args.environment)
    versions = {peer.name: peer.version for peer in use}
    kept: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    document = kept if kept.get("versions") == versions else {"versions": versions, "sound": {}, "rows": []}
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as work:
        programs = {peer.name: stack.enter_context(running(peer)) for peer in use}
        for fault, kind, root in faults_once({row["fault"] for row in document["rows"]}, Path(work)):
            told = {peer.name: found(peer, programs[peer.name], root, document["sound"], kind) for peer in use}
            document["rows"].append({"fault": fault, "set": kind, "reported": {name: texts for name, texts in told.items() if texts}})
            atomic_write(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
