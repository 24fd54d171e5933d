"""The software bill of materials of a release: CycloneDX 1.6 as JSON (https://cyclonedx.org/docs/1.6/json/).

It lists the model with its weight files and the pinned libraries of the package's lock. It carries no time and no random serial
number, which are optional there: equal releases have equal bills.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from model_core.spec.errors import SpecError
from model_core.spec.fleet.release import ReleaseFile

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)$")


def bill_of_materials(model_version: str, lock: str, weights: Mapping[str, ReleaseFile]) -> str:
    """The bill's text. lock: lines NAME==VERSION, empty lines and comments apart. Raises `SpecError` for a line that pins nothing."""
    model = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model_version}",
        "name": model_version.rpartition("/")[0] or model_version,
        "version": model_version.rpartition("/")[2],
        "components": [
            {"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": [{"alg": "SHA-256", "content": file.sha256}]}
            for path, file in sorted(weights.items())
        ],
    }
    libraries = [_library(*pin) for pin in pins_of(lock)]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": model},
        "components": libraries,
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": [one["bom-ref"] for one in libraries]}],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def pins_of(lock: str) -> list[tuple[str, str]]:
    """(name, version) of every library of a lock, sorted and each once, names as the package index normalises them (PEP 503)."""
    found = set[tuple[str, str]]()
    for number, line in enumerate(lock.splitlines(), start=1):
        stripped = line.partition("#")[0].strip()
        if not stripped:
            continue
        pin = _PIN.match(stripped)
        if pin is None:
            raise SpecError(f"line {number} of the lock: expected NAME==VERSION, got {stripped!r:.80}. Fix: pack the policy again")
        found.add((re.sub(r"[-_.]+", "-", pin["name"]).lower(), pin["version"]))
    return sorted(found)


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
