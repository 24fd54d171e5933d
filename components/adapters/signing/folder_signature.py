"""Signatures of a folder by `model-signing` (OpenSSF Model Signing 1.0): the only importer of that library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.spec.errors import CheckpointError, SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signs. private_key: PEM file. certificate, chain: PEM files of a certificate for that key and of the authorities above it.

    Without a certificate the plain key signs (ECDSA on P-256, P-384 or P-521).
    """

    private_key: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom a signature must be of. public_key: PEM file. authorities: PEM files of the authorities that a certificate must lead to."""

    public_key: Path | None = None
    authorities: tuple[Path, ...] = ()


def sign_folder(folder: Path, signature: Path, signer: Signer) -> None:
    """Sign every file below `folder` but `signature`, and write that file. Raises `SpecError` where the signer cannot sign."""
    from model_signing import signing

    config: Any = signing.Config()
    try:
        if signer.certificate is None:
            config.use_elliptic_key_signer(private_key=signer.private_key)
        else:
            config.use_certificate_signer(
                private_key=signer.private_key, signing_certificate=signer.certificate, certificate_chain=list(signer.chain)
            )
        config.set_hashing_config(_every_file(signature)).sign(folder, signature)
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(
            f"{folder} could not be signed with {signer.private_key}: {error}. Fix: name a key that the signer takes"
        ) from error


def verify_folder(folder: Path, signature: Path, trust: Trust) -> None:
    """Raises `CheckpointError` unless `signature` is one of `trust`, and of exactly the files of `folder`."""
    from model_signing import verifying

    if not signature.is_file():
        raise CheckpointError(f"{folder} carries no signature: {signature.name} is missing. Fix: fetch or sign the release again")
    config: Any = verifying.Config()
    try:
        if trust.public_key is not None:
            config.use_elliptic_key_verifier(public_key=trust.public_key)
        else:
            config.use_certificate_verifier(certificate_chain=list(trust.authorities))
        config.set_hashing_config(_every_file(signature)).verify(folder, signature)
    except Exception as error:  # the library reports a wrong signature, a changed file and a torn statement by many classes
        raise CheckpointError(
            f"the signature of {folder} does not hold: {str(error) or type(error).__name__}. "
            "Fix: fetch the release again; do not run this one"
        ) from error


def _every_file(signature: Path) -> Any:
    """Files that a version control system would keep apart are signed too; links are refused by the library."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
