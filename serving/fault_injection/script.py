"""The script of a run: which request meets which fault. The same script and seed give the same run.

    {"seed": 7,
     "latency": {"kind": "ramp", "ms": 50, "to_ms": 800, "over": 100, "jitter_ms": 10},
     "faults": [{"fault": "drop", "at": [3, 5]},
                {"fault": "nan", "first": 10, "last": 12},
                {"fault": "duplicate", "chance": 0.1},
                {"fault": "freeze", "every": 50, "ms": 2000}]}

Requests (OBSERVE) and connections (HELLO) are counted from 1 over the life of the process. What happens to request n is
a pure function of seed, rule and n: neither time nor the order of threads changes it. On the command line a rule is
written `NAME[@WHEN][~CHANCE][:KEY=VALUE,...]`, with WHEN as `3`, `3,5`, `3-8`, `3-` or `*50`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError
from serving.fault_injection.catalog import BYTES, DELIVERY, FAULTS, HANDSHAKE, LASTING, MEANING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One fault and when it happens. `at` names numbers; else every `every`-th of first..last (0: no end), with `chance`."""

    fault: str
    at: tuple[int, ...] = ()
    first: int = 1
    last: int = 0
    every: int = 0
    chance: float = 1.0
    ms: float = 0.0
    count: int = 1
    text: str = ""

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise SpecError(f"unknown fault {self.fault!r}; the faults are {', '.join(FAULTS)}")
        if not (self.first >= 1 and self.last >= 0 and self.every >= 0 and self.count >= 0 and all(n >= 1 for n in self.at)):
            raise SpecError(f"fault {self.fault!r}: at, first, last, every and count are whole numbers, counted from 1")
        if not (0.0 <= self.chance <= 1.0 and 0.0 <= self.ms < 1e9):
            raise SpecError(f"fault {self.fault!r}: chance is 0..1 and ms is 0..1e9, got chance={self.chance} ms={self.ms}")

    def hits(self, number: int, draw: float) -> bool:
        """Whether it happens to this request or connection. draw: a uniform random number that belongs to it."""
        if self.at:
            is_named = number in self.at or (self.fault in LASTING and number >= min(self.at))
        else:
            is_inside = number >= self.first and (self.last == 0 or number <= self.last)
            is_named = is_inside and (self.every == 0 or (number - self.first) % self.every == self.every - 1)
        return is_named and draw < self.chance


KINDS = ("fixed", "ramp", "bimodal", "spike")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long an answer takes, by request number. kind: fixed, ramp, bimodal or spike.

    ramp: from `ms` to `to_ms` over `over` requests; bimodal: `to_ms` with probability `share`, else `ms`;
    spike: `to_ms` at request `at`, else `ms`. jitter_ms: uniform, added.
    """

    kind: str = "fixed"
    ms: float = 0.0
    to_ms: float = 0.0
    over: int = 100
    share: float = 0.1
    at: int = 10
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"latency kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if not all(0.0 <= value < 1e9 for value in (self.ms, self.to_ms, self.jitter_ms)):
            raise SpecError("latency: ms, to_ms and jitter_ms are 0..1e9")
        if not (self.over >= 1 and self.at >= 1 and 0.0 <= self.share <= 1.0):
            raise SpecError("latency: over and at are whole numbers from 1, share is 0..1")

    def of(self, number: int, rng: np.random.Generator) -> float:
        """Milliseconds for request `number`."""
        draw, jitter = rng.random(2)
        ms = self.ms
        if self.kind == "ramp":
            ms += (self.to_ms - self.ms) * min((number - 1) / max(self.over - 1, 1), 1.0)
        elif (self.kind == "bimodal" and draw < self.share) or (self.kind == "spike" and number == self.at):
            ms = self.to_ms
        return ms + jitter * self.jitter_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFaults:
    """What happens to one request: its latency, and the rules that hit it, in the order of the script."""

    delay_ms: float
    rules: tuple[Rule, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The faults by name."""
        return tuple(rule.fault for rule in self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that a fault server does wrong: faults and latency."""

    seed: int = 0
    latency: Latency = field(default_factory=Latency)
    faults: tuple[Rule, ...] = ()

    def for_request(self, number: int) -> PlannedFaults:
        """What happens to the `number`-th request, from 1."""
        extra_ms, rules = 0.0, []
        for rule in self._hit(number, DELIVERY | BYTES | MEANING):
            extra_ms += rule.ms if rule.fault == "delay" else 0.0
            rules.append(rule)
        return PlannedFaults(delay_ms=self.latency.of(number, self.rng(number, "latency")) + extra_ms, rules=tuple(rules))

    def for_connection(self, number: int) -> Rule | None:
        """The fault of the `number`-th connection, from 1; None for a good one."""
        return next(iter(self._hit(number, HANDSHAKE)), None)

    def rng(self, number: int, purpose: str) -> np.random.Generator:
        """A generator that belongs to one request and one purpose."""
        return np.random.default_rng([self.seed & 0xFFFFFFFF, number, *purpose.encode()])

    def _hit(self, number: int, group: Mapping[str, str]) -> list[Rule]:
        return [
            rule
            for index, rule in enumerate(self.faults)
            if rule.fault in group and rule.hits(number, float(self.rng(number, f"rule{index}").random()))
        ]


def read_script(path: Path) -> Script:
    """A script from a JSON or TOML file. Raises SpecError naming the field that is wrong."""
    try:
        text = path.read_text()
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} is not a script: {error}") from error
    return script_of(document)


def script_of(document: object) -> Script:
    """A script from a plain document. Raises SpecError for an unknown key or a value of the wrong kind."""
    return from_document(Script, document, where="script")


def rule_of(text: str) -> Rule:
    """A rule in its short form, such as "nan@5-8", "drop@3,7", "duplicate~0.1" or "freeze@4:ms=2000"."""
    head, _, tail = text.partition(":")
    values: dict[str, Any] = {}
    for pair in filter(None, tail.split(",")):
        key, _, value = pair.partition("=")
        values[key] = value if key == "text" else _number(value, text)
    head, mark, chance = head.partition("~")
    if mark:
        values["chance"] = _number(chance, text)
    name, mark, when = head.partition("@")
    if mark:
        values |= _when(when, text)
    return from_document(Rule, {"fault": name, **values}, where=f"fault {text!r}")


def _when(when: str, text: str) -> dict[str, Any]:
    if when.startswith("*"):
        return {"every": _number(when[1:], text)}
    if "-" in when:
        first, _, last = when.partition("-")
        return {"first": _number(first, text), "last": _number(last, text) if last else 0}
    return {"at": [_number(part, text) for part in when.split(",")]}


def _number(value: str, text: str) -> int | float:
    try:
        return int(value) if value.isdigit() else float(value)
    except ValueError as error:
        raise SpecError(f"fault {text!r}: {value!r} is not a number; write for example drop@3, nan@5-8, freeze@4:ms=2000") from error
