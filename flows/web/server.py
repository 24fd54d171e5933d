"""The console's server: settings that were checked become a listening uvicorn server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from flows.web.app import create_app
from flows.web.console_endpoints import console_endpoints
from flows.web.http.operator_log import OperatorLog
from flows.web.http.pages import Pages
from flows.web.http.people import People
from model_core.access import TOKENS_FILE_VARIABLE, TOKENS_VARIABLE, Tokens, check_binding, is_loopback
from model_core.spec.errors import SpecError

if TYPE_CHECKING:
    import uvicorn


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleAddress:
    """Where the console listens, and who may use it. tokens: a file; None: as the environment says, else no tokens (loopback only)."""

    host: str = "127.0.0.1"
    port: int = 3100
    tokens: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SpecError("cert, key: TLS needs both; give both or neither")


def make_server(platform: Platform, address: ConsoleAddress) -> uvicorn.Server:
    """A server that is ready to run. Raises SpecError where it would be reachable from elsewhere without tokens, NotReady without pages."""
    import uvicorn

    tokens = _tokens(platform.settings, address)
    check_binding(address.host, tokens)
    people, log = People(tokens), OperatorLog.of_home(platform.settings.home)
    app = create_app(console_endpoints(platform, people), people, Pages(), only_loopback=is_loopback(address.host), log=log)
    config = uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        log_level="warning",
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def _tokens(settings: Settings, address: ConsoleAddress) -> Tokens | None:
    if address.tokens is not None:
        return Tokens.from_file(address.tokens)
    given = {TOKENS_VARIABLE: settings.tokens.get_secret_value(), TOKENS_FILE_VARIABLE: settings.tokens_file}
    return Tokens.from_environment({name: value for name, value in given.items() if value})
