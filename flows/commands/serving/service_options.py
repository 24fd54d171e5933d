"""How commands name a policy service: its address, the token to show and the certificates to trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from components.deployment.service_address import ServiceCredentials

ServiceAddress = Annotated[str, typer.Argument(help="address of a policy service, such as http://127.0.0.1:3000", metavar="URL")]
TokenFile = Annotated[
    Path | None, typer.Option(help="file with the bearer token to show (default: ACTWRIGHT_TOKEN)", exists=True, dir_okay=False)
]
CaFile = Annotated[Path | None, typer.Option(help="certificate authorities to trust, PEM", exists=True, dir_okay=False)]


def credentials_of(token_file: Path | None, ca_file: Path | None, timeout_s: float) -> ServiceCredentials:
    """The token of the file (else of the environment) and the trusted certificates; wrong usage where one cannot be read."""
    from components.deployment.service_address import ServiceCredentials
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError
    from model_core.spec.protocol.trust import checked_token

    named, token = "ACTWRIGHT_TOKEN", load_settings().token.get_secret_value().strip()
    if token_file is not None:
        named, token = f"--token-file {token_file}", token_file.read_text(encoding="utf-8", errors="replace").strip()
        if not token:
            raise typer.BadParameter(f"{named} is empty; it holds the token, on one line")
    try:
        credentials = ServiceCredentials(token=checked_token(token, named), ca_file=ca_file, timeout_s=timeout_s)
        credentials.tls("https://")  # an unreadable CA file is refused before the service is called
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    return credentials
