"""Signatures of the fleet's documents: Ed25519 over the canonical bytes of a document and its kind.

    {"body": {...}, "form": 1, "key": "<key id>", "kind": "cell-report", "signature": "<hex, 128>"}

What is signed is "actwright/<kind>/1\\n" and the bytes of `body` as they stand in the message, so that a document of one kind is never
taken for another. The key id is SHA-256 of the public key (32 bytes). `cryptography` is imported where it is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from model_core.spec.errors import SpecError, WireError
from model_core.spec.files import atomic_write
from model_core.spec.fleet.documents import FORM, KINDS, Document, canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey
    PublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey

D = TypeVar("D", bound=Document)
MOST_BYTES = 2**20
_TOLD_KINDS = Annotated[str, Meta(max_length=64)]


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document on its way. body: the bytes that are signed."""

    body: msgspec.Raw
    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    kind: _TOLD_KINDS
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]
    form: Literal[1] = FORM


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 (hex, 64) of a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sealed(document: Document, key: Ed25519PrivateKey) -> bytes:
    """A document with its signature, as it travels. Raises `WireError` for one that no reader would take: it breaks its own rules."""
    body, kind = canonical(document), KINDS[type(document)]
    _read(body, type(document), kind)
    signature = key.sign(_signed(kind, body)).hex()
    return msgspec.json.encode(Sealed(body=msgspec.Raw(body), key=key_id(key.public_key()), kind=kind, signature=signature), order="sorted")


def opened(message: bytes, kind: type[D], trusted: Mapping[str, Ed25519PublicKey]) -> D:
    """The document in a message, after its signature was found to be of a trusted key (key id -> key).

    Raises `WireError` for a message that is too long, not ours, of another kind, signed by an unknown key, changed, or not canonical.
    """
    if len(message) > MOST_BYTES:
        raise WireError(f"a message of {len(message)} bytes, expected at most {MOST_BYTES}")
    try:
        found = msgspec.json.decode(message, type=Sealed, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"this is no signed document: {error}") from error
    if found.kind != KINDS[kind]:
        raise WireError(f"expected a {KINDS[kind]}, got {found.kind!r}")
    _check(found, trusted)
    document = _read(bytes(found.body), kind, found.kind)
    if canonical(document) != bytes(found.body):
        raise WireError(f"{found.kind}: expected canonical JSON: keys sorted, no spaces, every field once")
    return document


def _read(body: bytes, kind: type[D], name: str) -> D:
    try:
        return msgspec.json.decode(body, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"{name}: {error}") from error


def _check(found: Sealed, trusted: Mapping[str, Ed25519PublicKey]) -> None:
    from cryptography.exceptions import InvalidSignature

    key = trusted.get(found.key)
    if key is None:
        raise WireError(f"{found.kind}: key {found.key[:16]} is not known here. Fix: enrol it, or sign with the right key")
    try:
        key.verify(bytes.fromhex(found.signature), _signed(found.kind, bytes(found.body)))
    except InvalidSignature as error:
        raise WireError(f"{found.kind}: the signature of key {found.key[:16]} does not hold") from error


def _signed(kind: str, body: bytes) -> bytes:
    return f"actwright/{kind}/{FORM}\n".encode() + body


def trusted(*keys: Ed25519PublicKey) -> dict[str, Ed25519PublicKey]:
    """Key id -> key, for `opened`."""
    return {key_id(key): key for key in keys}


def make_key(path: Path) -> Ed25519PrivateKey:
    """Write a new private key (PKCS 8, not encrypted, 0600) and beside it NAME.pub.pem. Raises `SpecError` where a key is already."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    write_key_pair(path, key)
    return key


def write_key_pair(path: Path, key: PrivateKey) -> None:
    """Write a private key as `make_key` does, and its public half. Raises `SpecError` where a key is already."""
    from cryptography.hazmat.primitives import serialization as form

    content = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise SpecError(f"{path} is there already, and a key is never replaced. Fix: name another file") from error
    atomic_write(public_path(path), written_public(key.public_key()))


def public_path(path: Path) -> Path:
    """Where the public half of a private key file is."""
    return path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")


def written_public(key: PublicKey) -> str:
    """A public key as PEM text."""
    from cryptography.hazmat.primitives import serialization as form

    return key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo).decode()


def read_private(path: Path) -> Ed25519PrivateKey:
    """A private key from a file. Raises `SpecError` where there is none, or where others than its owner can read it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise SpecError(f"{path} can be read by others than its owner. Fix: chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, TypeError, UnsupportedAlgorithm) as error:
        raise SpecError(
            f"{path} holds no key that can be read: {error}. Fix: make one with `actwright fleet keys identity FILE`"
        ) from error
    except ValueError as error:
        raise error if isinstance(error, SpecError) else SpecError(f"{path} holds no private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SpecError(f"{path} holds a key of another kind, expected Ed25519. Fix: make one with `actwright fleet keys identity FILE`")
    return key


def read_public(text: str, where: str) -> Ed25519PublicKey:
    """A public key from PEM text; `where` it stands. Raises `SpecError` for a text that holds none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SpecError(f"{where} holds no public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SpecError(f"{where} holds a key of another kind, expected Ed25519")
    return key
