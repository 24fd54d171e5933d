"""Two machines on one: network namespaces joined by a cable. Names, addresses and interfaces exist only inside them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def two_hosts(names: Sequence[str]) -> Iterator[list[str]]:
    """Two namespaces joined by a veth pair whose ends are called eth0, as in pods; each knows both hosts by name."""
    tag = f"aw{os.getpid()}"
    spaces = [f"{tag}n{i}" for i in range(2)]
    hosts = [Path("/etc/netns", space) for space in spaces]
    try:
        for space in spaces:
            ip("netns", "add", space)
        ip("-n", spaces[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", spaces[1])
        for i, space in enumerate(spaces):
            ip("-n", space, "addr", "add", f"10.99.0.{i + 1}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            hosts[i].mkdir(parents=True)
            lines = ["127.0.0.1 localhost", *(f"10.99.0.{j + 1} {name}" for j, name in enumerate(names))]
            (hosts[i] / "hosts").write_text("\n".join(lines) + "\n")
        yield spaces
    finally:
        for space, folder in zip(spaces, hosts, strict=True):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)


def needs_namespaces() -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, iproute2 and util-linux")
    probe = f"aw{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
