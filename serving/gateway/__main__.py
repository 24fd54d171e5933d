"""A bundle, or the stub policy, served by uvicorn alone: `python -m serving.gateway --bundle FOLDER`.

The same application as inside a Bento, with TLS and without BentoML's process tree.
"""

from __future__ import annotations

import argparse
import logging
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from model_core.access import Tokens, check_binding
from model_core.bundle import MANIFEST, PACK_AGAIN
from model_core.spec.errors import ActwrightError, SpecError
from model_core.spec.settings import real, text, whole
from serving.gateway.app import create_app
from serving.gateway.http.malloc import keep_freed
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.inference.stub_policy import StubPolicy, stub_contract
from serving.gateway.operations.environment import DIALECTS_VARIABLE, LIMITS_VARIABLE, read_environment
from serving.gateway.operations.fleet_file import FLEET_VARIABLE, read_fleet_file
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from serving.gateway.shadow.candidate_process import CandidateProcess, ShadowSettings, candidate_command
from serving.gateway.shadow.named_candidate import NamedCandidate
from serving.gateway.shadow.shadow import Shadow


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped. Returns 2 for wrong settings, before anything is opened."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        server = make_server(args)
    except ActwrightError as error:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 2
    keep_freed()
    server.run()
    return 0


def make_server(args: argparse.Namespace) -> uvicorn.Server:
    """A server for checked settings. Raises SpecError naming the field that is wrong."""
    tokens = Tokens.from_file(Path(args.tokens_file)) if args.tokens_file else Tokens.from_environment(os.environ)
    check_binding(text("host", args.host), tokens)
    whole("port", args.port, low=0, high=65_535)
    environment = read_environment(os.environ)
    limits = GatewayLimits.from_text(_limits_file(Path(args.limits))) if args.limits else environment.limits
    fleet = read_fleet_file(Path(args.fleet)) if args.fleet else environment.fleet
    gateway = Gateway(_loader(args), limits, instance=environment.instance, tokens=tokens, ties=fleet.ties)
    _check_tls(args.cert, args.key)
    config = uvicorn.Config(
        create_app(
            gateway,
            field_maps=Path(args.field_maps) if args.field_maps else environment.field_maps,
            kill_list=fleet.kill_list,
            shadow=_shadow(args, gateway),
        ),
        host=args.host,
        port=args.port,
        log_level="warning",
        **SOCKET_OPTIONS,
        ssl_certfile=args.cert,
        ssl_keyfile=args.key,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)


def _loader(args: argparse.Namespace) -> Callable[[], LoadedModel]:
    if args.stub_s is not None:
        seconds = real("stub", args.stub_s, high=600.0)
        contract = stub_contract(cameras=args.stub_cameras, size=args.stub_size)
        policy = StubPolicy(contract=contract, service_s=seconds)
        return lambda: LoadedModel(policy=policy, contract=contract, model_version=policy.model_version)
    if not args.bundle:
        raise SpecError("bundle: name the folder of a bundle (--bundle), or serve the stub policy (--stub 0.05)")
    bundle = Path(args.bundle)
    if not (bundle / MANIFEST).is_file():
        raise SpecError(f"bundle: {bundle} has no {MANIFEST}; {PACK_AGAIN}")
    return lambda: open_bundle(bundle)


def _shadow(args: argparse.Namespace, gateway: Gateway) -> Shadow | NamedCandidate | None:
    settings = ShadowSettings(deadline_s=real("shadow-deadline-s", args.shadow_deadline_s, above=0.0, high=600.0))

    def of(bundle: str) -> Shadow:
        candidate = CandidateProcess(candidate_command(bundle), settings)
        return Shadow(candidate, lambda: gateway.model if gateway.is_ready else None, gateway.metrics, settings)

    if args.shadow and args.candidate:
        raise SpecError("shadow, candidate: one names a candidate for good, the other a file that names one; give one of them")
    if args.candidate:
        return NamedCandidate(Path(args.candidate), of)
    if args.shadow and not (Path(args.shadow) / MANIFEST).is_file():
        raise SpecError(f"shadow: {args.shadow} has no {MANIFEST}; {PACK_AGAIN}")
    return of(args.shadow) if args.shadow else None


def _limits_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"limits: {path} cannot be read: {error.strerror}") from error


def _check_tls(cert: str | None, key: str | None) -> None:
    if (cert is None) != (key is None):
        raise SpecError("cert, key: TLS needs both; give both or neither")
    if cert is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise SpecError(f"cert, key: {cert} and {key} are not a certificate and its key: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.gateway",
        description="Serve one packed policy to workcells.",
        epilog="Example: python -m serving.gateway --bundle bento/src/bundle --tokens-file tokens.json --cert c.pem --key k.pem",
    )
    parser.add_argument("--bundle", help="folder with bundle.json, checkpoint/ and probes/")
    parser.add_argument("--stub", dest="stub_s", type=float, metavar="SECONDS", help="serve the stub policy, SECONDS per answer")
    parser.add_argument("--stub-cameras", type=int, default=1, help="number of cameras of the stub policy (1)")
    parser.add_argument("--stub-size", type=int, default=16, help="width and height of the stub policy's images in pixels (16)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs tokens (127.0.0.1)")
    parser.add_argument("--port", type=int, default=3000, help="port, 0 for a free one (3000)")
    parser.add_argument("--cert", help="TLS certificate chain, PEM")
    parser.add_argument("--key", help="TLS private key, PEM")
    parser.add_argument("--tokens-file", help="JSON {sha256 of a token: {subject, role, expires_at}}")
    parser.add_argument(
        "--field-maps", help=f"JSON of field names that other projects' clients use, see docs/protocol.md (default: {DIALECTS_VARIABLE})"
    )
    parser.add_argument("--limits", help=f"JSON file of bounds, see serving/gateway/operations/limits.py (default: {LIMITS_VARIABLE})")
    parser.add_argument("--fleet", help=f"JSON file that ties this service to a fleet, see docs/fleet.md (default: {FLEET_VARIABLE})")
    parser.add_argument("--shadow", metavar="BUNDLE", help="folder of a candidate whose answers are compared and sent to no robot")
    parser.add_argument("--candidate", metavar="FILE", help="file in which an agent names such a candidate, now or later")
    parser.add_argument("--shadow-deadline-s", type=float, default=2.0, help="a later answer of the candidate counts as late (2.0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
