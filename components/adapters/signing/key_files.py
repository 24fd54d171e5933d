"""Private and public keys in PEM files: made here, read here. A private file is readable by its owner alone (0600)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_core.spec.errors import SpecError
from model_core.spec.fleet.signatures import write_key_pair

RELEASE = "release"
ROLES = ("root", "targets", "snapshot", "timestamp")
OFFLINE = ("root", "targets")


def site_role(site: str) -> str:
    """The name of a site's role in the update metadata, and of its key file. Raises `SpecError` for a name that cannot be a file's."""
    if not site or not all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in site) or not site[0].isalnum():
        raise SpecError(f"{site!r} is no name of a site. Fix: use letters, digits, - and _, such as lab-2")
    return f"site-{site}"


def make_keys(folder: Path, sites: Sequence[str]) -> list[str]:
    """Make one key for each role and site, and one (ECDSA P-256) that signs releases; returns their names.

    Writes NAME.pem (PKCS 8, not encrypted, 0600) and NAME.pub.pem. Raises `SpecError` where `folder` holds one of them: a key is never
    replaced.
    """
    names = [RELEASE, *ROLES, *(site_role(site) for site in sites)]
    add_keys(folder, names)
    return names


def add_keys(folder: Path, names: Sequence[str]) -> None:
    """Make the keys of these roles, as `make_keys` does. Raises `SpecError` where `folder` holds one of them."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if there := [name for name in names if (folder / f"{name}.pub.pem").exists() or (folder / f"{name}.pem").exists()]:
        raise SpecError(f"{folder} holds the key {there[0]} already, and a key is never replaced. Fix: name another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in names:
        write_key_pair(folder / f"{name}.pem", generate_private_key(SECP256R1()) if name == RELEASE else Ed25519PrivateKey.generate())


def private_file(folder: Path, name: str) -> Path:
    """Where a private key is. Raises `SpecError` where it is not, or where others than its owner can read it."""
    path = folder / f"{name}.pem"
    if not path.is_file():
        raise SpecError(f"the private key {name} is not in {folder}. Fix: bring {path.name} there, or name the folder that holds it")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise SpecError(f"{path} can be read by others than its owner. Fix: chmod 600 {path}")
    return path


def load_private(folder: Path, name: str) -> Any:
    """A private key of `cryptography`. Raises `SpecError` for a file that holds none."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return _loaded(private_file(folder, name), lambda content: load_pem_private_key(content, None))


def load_public(folder: Path, name: str) -> Any:
    """A public key of `cryptography`. Raises `SpecError` for a file that is missing or holds none."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return _loaded(folder / f"{name}.pub.pem", load_pem_public_key)


def sites_in(folder: Path) -> list[str]:
    """The sites whose public keys are in a folder, sorted."""
    return sorted(path.name.removesuffix(".pub.pem").removeprefix("site-") for path in folder.glob("site-*.pub.pem"))


def _loaded(path: Path, load: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SpecError(f"{path} holds no key that can be read: {error}. Fix: make keys with `actwright fleet keys new FOLDER`") from error
