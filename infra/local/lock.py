"""The lock as text: every package that `make setup` installs, pinned as it is installed; what only `make setup-all` brings is left out.

What belongs to it is followed from the requirements of actwright[all] through those of each package, as they are for this interpreter.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = "# Every package of the one environment, pinned. Installed by infra/local/setup.sh (make setup)."
# what packages that come as source are built with (infra/local/setup.sh, step 2)
BUILD_TOOLS = ("setuptools", "wheel", "ninja", "py-cpuinfo", "packaging", "psutil", "numpy")


def needed(roots: list[tuple[str, frozenset[str]]]) -> dict[str, Distribution]:
    """Installed distributions that the roots (name, extras) ask for, by canonical name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while roots:
        name, extras = roots.pop()
        key = (canonicalize_name(name), extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that this interpreter or system does not need
        found[key[0]] = one
        for text in one.requires or ():
            asked = Requirement(text)
            if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                roots.append((asked.name, frozenset(asked.extras)))
    return found


def lock_text() -> str:
    """The lines of requirements.lock."""
    found = needed([("actwright", frozenset({"all"})), *((name, frozenset[str]()) for name in BUILD_TOOLS)])
    found.pop("actwright", None)
    pins = sorted(f"{one.metadata['Name']}=={one.version.split('+')[0]}" for one in found.values())
    return "\n".join([HEAD, *sorted(pins, key=str.lower)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(lock_text())
