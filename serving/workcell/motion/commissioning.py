"""The commissioning file: the limits that a person signed, of how far one workcell may be driven under one contract.

    curl -s http://127.0.0.1:3000/v1/contract > contract.json
    python -m serving.workcell.motion.commissioning template --contract contract.json --cell cell-01 --out cell-01.limits.json
    python -m serving.workcell.motion.commissioning check FILE --contract contract.json

The file is JSON, belongs to one (workcell, embodiment, contract) and is hashed; the cell reads it once, before anything
moves. Without one the cell works inside the contract's own ranges, and says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from model_core.spec.contract import EmbodimentSpec, PolicyContract, digest_of
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import ActwrightError, ContractError, SpecError, require
from model_core.spec.files import atomic_write
from serving.contract_file import read_contract
from serving.workcell.motion.limits import Limits, tightened, unbounded, widest_limits

KIND = "actwright-commissioning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commissioning:
    """One commissioning file. contract_id: the contract that it was made for. commissioned_by: a person; "": unsigned."""

    kind: Literal["actwright-commissioning"]
    version: Literal[1]
    workcell: str
    embodiment: str
    contract_id: str
    commissioned_by: str = ""
    note: str = ""
    limits: Limits

    def __post_init__(self) -> None:
        for name in ("workcell", "embodiment", "contract_id"):
            require(getattr(self, name) != "", f"{name} must be a text", got="''")

    @property
    def digest(self) -> str:
        """SHA-256 of the document."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The file's document; `from_document` is its inverse."""
        return {**to_document(self), "limits": self.limits.to_json()}

    def limits_for(self, cell: str, contract: PolicyContract, body: EmbodimentSpec | None = None) -> Limits:
        """The limits in force under `contract`: the file's, tightened by the release. Raises ContractError naming what differs.

        body: the cell's own, where the service converts between the two.
        """
        body = body or contract.embodiment
        for name, here, there in (
            ("workcell", self.workcell, cell),
            ("embodiment", self.embodiment, body.name),
            ("contract_id", self.contract_id, contract.contract_id),
        ):
            if here != there:
                raise ContractError(f"commissioning {name}: the file is for {here!r}, this is {there!r}; commission this pair first")
        units, theirs = ([dim.unit for dim in one.action.dims] for one in (body, contract.embodiment))
        if body.name == contract.embodiment.name and units != theirs:
            raise ContractError(
                f"commissioning embodiment: {body.name!r} is in {theirs} by the contract, in {units} on this cell; limits have no unit. "
                "Fix: give this robot's embodiment a name of its own, and commission it under that name"
            )
        names, expected = [d.name for d in self.limits.dims], [d.name for d in body.action.dims]
        if names != expected:
            raise ContractError(f"commissioning limits.dims: the file limits {names}, the contract has {expected}")
        return tightened(self.limits, body, contract.embodiment)


def read(path: Path) -> Commissioning:
    """Read a file. Raises SpecError naming the file, the field that is wrong, unknown or missing, and what to do."""
    try:
        return from_document(Commissioning, json.loads(path.read_text()), where="commissioning")
    except (OSError, ValueError) as error:  # SpecError is a ValueError
        raise SpecError(f"{path}: {error}; correct the file, or write a new one with the command `template` of {__spec__.name}") from error


def write(path: Path, commissioning: Commissioning) -> None:
    """Write a file, whole or not at all."""
    atomic_write(path, json.dumps(commissioning.to_json(), indent=1) + "\n")


def template(cell: str, contract: PolicyContract, places: Mapping[str, tuple[str, float]] | None = None) -> Commissioning:
    """The widest file that `contract` allows, unsigned; its note names what it does not bound.

    places: action dim -> (proprio dim, gain), adds place limits.
    """
    body = contract.embodiment
    unknown = set(places or {}) - {dim.name for dim in body.action.dims}
    require(not unknown, f"--place {', '.join(sorted(unknown))}: no action dimension of that name", got=[d.name for d in body.action.dims])
    widest = widest_limits(body)
    limits = replace(widest, dims=tuple(_placed(dim, body, (places or {})) for dim in widest.dims))
    open_ends = [f"NOT BOUNDED: {sentence}" for sentence in unbounded(limits, body)]
    note = "the contract's own ranges; narrow every number to what this cell allows, then put your name into commissioned_by"
    return Commissioning(
        kind=KIND,
        version=1,
        workcell=cell,
        embodiment=body.name,
        contract_id=contract.contract_id,
        limits=limits,
        note="; ".join([note, *open_ends]),
    )


def _placed(dim: Any, body: EmbodimentSpec, places: Mapping[str, tuple[str, float]]) -> Any:
    if dim.name not in places:
        return dim
    sensor, gain = places[dim.name]
    found = [p for p in body.proprio.dims if p.name == sensor]
    require(bool(found), f"--place {dim.name}: no proprio dimension {sensor!r}; there are {[p.name for p in body.proprio.dims]}")
    return replace(dim, measured_by=sensor, gain=gain, place_low=found[0].low, place_high=found[0].high)


def main(argv: list[str] | None = None) -> int:
    """Write a template from a service's contract, or check a file; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "check":
            found = read(args.file)
            signed = found.commissioned_by or "NOBODY (a template)"
            sys.stdout.write(
                f"{args.file}: workcell {found.workcell}, {found.embodiment}, contract {found.contract_id}\n"
                f"commissioned by {signed}; digest {found.digest}\n"
            )
            if args.contract is not None:
                contract = read_contract(args.contract)
                _say_unbounded(found.limits_for(found.workcell, contract), contract.embodiment)
            return 0
        contract = read_contract(args.contract)
        made = template(args.cell, contract, dict(_place(text) for text in args.place))
        write(args.out, made)
    except ActwrightError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"{args.out}: written; narrow the numbers and sign it, then: python -m serving.workcell --commissioning {args.out} ...\n"
    )
    _say_unbounded(made.limits, contract.embodiment)
    return 0


def _say_unbounded(limits: Limits, body: EmbodimentSpec) -> None:
    for sentence in unbounded(limits, body):
        sys.stdout.write(f"NOT BOUNDED: {sentence}\n")


def _place(text: str) -> tuple[str, tuple[str, float]]:
    name, _, rest = text.partition("=")
    sensor, _, gain = rest.partition(",")
    try:
        return name, (sensor, float(gain or "1"))
    except ValueError:
        raise SpecError(f"--place needs DIM=SENSOR,GAIN, got {text!r}; for example --place dx=hand_x,0.04") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.workcell.motion.commissioning",
        description="Limits of one workcell under one contract.",
        epilog="Example: python -m serving.workcell.motion.commissioning template --contract contract.json --cell c1 --out limits.json",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("template", help="write the widest file that a contract allows")
    made.add_argument("--contract", type=Path, required=True, help="contract document (JSON), as /v1/contract gives it")
    made.add_argument("--cell", required=True, help="name of the workcell")
    made.add_argument("--place", action="append", default=[], metavar="DIM=SENSOR,GAIN", help="also bound where DIM moves; may be repeated")
    made.add_argument("--out", type=Path, required=True, help="file to write")
    checked = commands.add_parser("check", help="read a file and say for whom it is and, under a contract, what it does not bound")
    checked.add_argument("file", type=Path)
    checked.add_argument("--contract", type=Path, default=None, help="contract document (JSON): is the file in force under it?")
    return parser


if __name__ == "__main__":
    sys.exit(main())
