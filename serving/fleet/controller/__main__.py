"""The fleet's controller, served by uvicorn: `python -m serving.fleet.controller --database sqlite:///fleet.db --key controller.pem`."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from model_core.access import Tokens, check_binding
from model_core.spec.errors import ActwrightError, SpecError
from model_core.spec.fleet.documents import CONTROLLER_PORT
from model_core.spec.fleet.signatures import read_private
from model_core.spec.settings import real, text, whole
from serving.fleet.controller.app import all_endpoints, create_app
from serving.fleet.controller.http.mlflow_hook import MlflowHook
from serving.fleet.controller.http.openapi import openapi_document
from serving.fleet.controller.service import Controller
from serving.fleet.controller.site_offers import SiteOffers
from serving.fleet.controller.store.database import Database

DATABASE_VARIABLE, HOOK_VARIABLE = "ACTWRIGHT_FLEET_DATABASE", "ACTWRIGHT_FLEET_HOOK_SECRET"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped. Returns 2 for wrong settings, before anything is served."""
    args = _parser().parse_args(argv)
    if args.openapi:
        print(json.dumps(openapi_document(all_endpoints()), indent=1, sort_keys=True))  # noqa: T201
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        server = make_server(args)
    except ActwrightError as error:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 2
    settle_memory()
    server.run()
    return 0


def settle_memory() -> None:
    """Take what is loaded out of every later collection of garbage, and collect less often: one over all of it holds reports for tens of
    milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def make_server(args: argparse.Namespace) -> uvicorn.Server:
    """A server for checked settings. Raises `SpecError` naming what is wrong."""
    tokens = Tokens.from_file(Path(args.tokens_file)) if args.tokens_file else Tokens.from_environment(os.environ)
    check_binding(text("host", args.host), tokens)
    whole("port", args.port, high=65_535)
    key = read_private(Path(text("key", args.key)))
    every_s, look_s = real("report-every", args.report_every, above=0.0, high=86_400.0), real("look-every", args.look_every, above=0.0)
    instance = os.environ.get("ACTWRIGHT_INSTANCE", "")
    database = Database(text("database", args.database))
    controller = Controller(database, key, report_every_s=every_s, instance=instance, offers=_offers(args))
    hook = MlflowHook(controller=controller, secret=os.environ.get(HOOK_VARIABLE, ""), tracking_url=args.mlflow)
    app = create_app(controller, tokens, look_every_s=look_s, hook=hook)
    config = uvicorn.Config(
        app,
        host=args.host,
        port=args.port,
        log_level="warning",
        ssl_certfile=args.cert,
        ssl_keyfile=args.tls_key,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def _offers(args: argparse.Namespace) -> SiteOffers | None:
    """Raises `SpecError` where a repository is named without the root that it is checked from."""
    if not args.repository:
        return None
    if not args.root or not Path(args.root).is_file():
        raise SpecError(f"--root {args.root or '(none)'}: expected the repository's 1.root.json. Fix: bring it here by hand, as to robots")
    return SiteOffers(args.repository, Path(args.root), Path(args.metadata))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.fleet.controller",
        description="Serve the controller of a fleet: cells report to it, people order rollouts of it.",
        epilog="Example: python -m serving.fleet.controller --database sqlite:///fleet.db --key controller.pem",
    )
    parser.add_argument(
        "--database", default=os.environ.get(DATABASE_VARIABLE, "sqlite:///fleet.db"), help=f"URL of SQLAlchemy ({DATABASE_VARIABLE})"
    )
    parser.add_argument("--key", help="private key (PEM, Ed25519) that signs what is proposed to cells")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs tokens (127.0.0.1)")
    parser.add_argument("--port", type=int, default=CONTROLLER_PORT, help=f"port ({CONTROLLER_PORT})")
    parser.add_argument("--cert", help="TLS certificate chain, PEM")
    parser.add_argument("--tls-key", help="its private key, PEM")
    parser.add_argument("--tokens-file", help="JSON {sha256 of a token: {subject, role, expires_at}}")
    parser.add_argument("--report-every", type=float, default=10.0, help="seconds between two reports of a cell (10)")
    parser.add_argument("--look-every", type=float, default=1.0, help="seconds between two looks at the rollouts (1)")
    parser.add_argument("--mlflow", default="", help=f"MLflow's server, whose webhook is accepted with the secret in {HOOK_VARIABLE}")
    parser.add_argument(
        "--repository", default="", help="repository of update metadata: only what a site is offered there is proposed to it"
    )
    parser.add_argument("--root", default="", help="its 1.root.json, brought here by hand")
    parser.add_argument("--metadata", default="fleet-metadata", help="folder for the metadata that are trusted (fleet-metadata)")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
