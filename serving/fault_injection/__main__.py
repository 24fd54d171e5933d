"""`python -m serving.fault_injection server|proxy`: inject faults on purpose and repeatably. Needs no torch.

Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 the port is in use, 2 wrong usage, 137 killed by its own script.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

from model_core.spec.documents import from_document
from model_core.spec.errors import ActwrightError, SpecError
from serving.contract_file import read_contract
from serving.fault_injection import catalog
from serving.fault_injection.link_conditions import ACTIONS, Conditions, LinkAction
from serving.fault_injection.proxy import FaultProxy, forward_for_ever
from serving.fault_injection.script import Latency, Script, read_script, rule_of
from serving.fault_injection.server import FaultServer, serve_for_ever

_SERVER_EXAMPLES = """
examples:
  python -m serving.fault_injection server --port 8765 --fault drop@3 --fault nan@5-8 --fault duplicate~0.1
  python -m serving.fault_injection server --latency ramp:ms=50,to_ms=800,over=100 --seed 7
  python -m serving.fault_injection server --fault mute@1                 the first connection is accepted and never answered
  python -m serving.fault_injection server --fault freeze@4:ms=2000 --fault kill@20
  python -m serving.fault_injection server --script night.toml            the same as a file: seed, latency, [[faults]]

A fault is written NAME[@WHEN][~CHANCE][:KEY=VALUE,...]. WHEN counts requests (connections, for the first group) from 1 over
the life of the process: 3, or 3,5 or 3-8 or 3- or *50 (every fiftieth). KEYs: ms, count, text. The same seed and the same
requests give the same faults. Every fault that is injected is printed as one JSON line.

"""
_PROXY_EXAMPLES = """
examples:
  python -m serving.fault_injection proxy --upstream 127.0.0.1:3000 --port 3001 --latency-ms 40 --jitter-ms 20
  python -m serving.fault_injection proxy --upstream 127.0.0.1:3000 --port 3001 --rate-kbps 1000 --loss 0.05
  python -m serving.fault_injection proxy --upstream 127.0.0.1:3000 --port 3001 --at 5:half-open --at 9:heal --at 20:cut

Then point the client at port 3001. --at SECONDS:ACTION changes the link while it runs:
  half-open   drop everything in both directions and keep the sockets: no FIN, no RST
  heal        forward again (connections that were half-open are reset)
  cut         reset every connection once; new ones are let through
  refuse      reset every connection and refuse new ones until heal
  kill        end the proxy at once with exit code 137
"""


def main(argv: list[str] | None = None) -> int:
    """Run the server or the proxy; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it would log the injected faults as errors
    try:
        work = _server(args) if args.what == "server" else _proxy(args)
    except SpecError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (ActwrightError, OSError, ValueError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        sys.stderr.write(f"cannot listen on {args.host}:{args.port}: {error}\n")
        return 1
    return 0


def _server(args: argparse.Namespace) -> Coroutine[object, object, None]:
    script = read_script(args.script) if args.script else Script()
    latency = _latency(args.latency) if args.latency else script.latency
    faults = (*script.faults, *(rule_of(text) for text in args.fault))
    script = Script(seed=script.seed if args.seed is None else args.seed, latency=latency, faults=faults)
    contract = read_contract(args.contract) if args.contract else None
    return serve_for_ever(FaultServer(script, contract=contract, model_version=args.model_version), args.host, args.port)


def _latency(text: str) -> Latency:
    kind, _, tail = text.partition(":")
    if kind.replace(".", "").isdigit():
        return Latency(ms=float(kind))
    pairs = (pair.partition("=") for pair in filter(None, tail.split(",")))
    try:
        numbers = {key: int(value) if key in {"at", "over"} else float(value) for key, _, value in pairs}
        return from_document(Latency, {"kind": kind, **numbers}, where="latency")
    except ValueError as error:
        raise SpecError(f"latency {text!r}: {error}; write for example 80, ramp:ms=50,to_ms=800 or bimodal:ms=50,to_ms=400") from error


def _proxy(args: argparse.Namespace) -> Coroutine[object, object, None]:
    conditions = Conditions(
        latency_ms=args.latency_ms,
        jitter_ms=args.jitter_ms,
        rate_kbps=args.rate_kbps,
        loss=args.loss,
        stall_ms=args.stall_ms,
        flip=args.flip,
        direction=args.direction,
    )
    plan = tuple(_action(text) for text in args.at)
    return forward_for_ever(FaultProxy(args.upstream, conditions, seed=args.seed, plan=plan), args.host, args.port)


def _action(text: str) -> LinkAction:
    at, _, action = text.partition(":")
    try:
        return LinkAction(at_s=float(at), action=action)
    except ValueError as error:
        raise SpecError(f"--at needs SECONDS:ACTION, got {text!r}; the actions are {', '.join(ACTIONS)}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.fault_injection", description="A policy service or a network link with injected faults."
    )
    parts = parser.add_subparsers(dest="what", required=True, metavar="server|proxy")
    raw = argparse.RawDescriptionHelpFormatter
    server = parts.add_parser(
        "server",
        formatter_class=raw,
        help="a policy service that speaks the native protocol with faults",
        description="A policy service without a model that answers by a script of faults.",
        epilog=_SERVER_EXAMPLES + _all_faults(),
    )
    server.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    server.add_argument("--port", type=int, default=8765, help="port (default 8765; 0 takes a free one and prints it)")
    server.add_argument("--script", type=Path, help="a script as JSON or TOML")
    server.add_argument("--fault", action="append", default=[], metavar="FAULT", help="one more fault; may be repeated")
    server.add_argument("--latency", default="", help="80, or fixed|ramp|bimodal|spike:ms=..,to_ms=..,over=..,share=..,at=..,jitter_ms=..")
    server.add_argument("--seed", type=int, default=None, help="seed of every random choice (default: the script's, or 0)")
    server.add_argument("--contract", type=Path, help="the contract to offer, as GET /v1/contract gives it (default: fits every client)")
    server.add_argument("--model-version", default="faults/1", help="the model version in its answers (default faults/1)")
    proxy = parts.add_parser(
        "proxy",
        formatter_class=raw,
        help="a faulty link between any TCP client and server",
        description="A faulty network link between any TCP client and server.",
        epilog=_PROXY_EXAMPLES,
    )
    proxy.add_argument("--upstream", required=True, metavar="HOST:PORT", help="the real server")
    proxy.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    proxy.add_argument("--port", type=int, default=3001, help="port (default 3001; 0 takes a free one and prints it)")
    proxy.add_argument("--latency-ms", type=float, default=0.0, help="added in each direction")
    proxy.add_argument("--jitter-ms", type=float, default=0.0, help="uniform, added to the latency; the order is kept")
    proxy.add_argument("--rate-kbps", type=float, default=0.0, help="bandwidth of each direction (default: unlimited)")
    proxy.add_argument("--loss", type=float, default=0.0, help="chance that a segment is lost and arrives --stall-ms later")
    proxy.add_argument("--stall-ms", type=float, default=200.0, help="delay of a lost segment (default 200)")
    proxy.add_argument("--flip", type=float, default=0.0, help="chance that a segment has one bit flipped")
    proxy.add_argument("--direction", default="both", help="what is affected: both, up (to the server) or down (default both)")
    proxy.add_argument("--at", action="append", default=[], metavar="S:ACTION", help="change the link after S seconds; may be repeated")
    proxy.add_argument("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    return parser


def _all_faults() -> str:
    groups = {
        "to the connection (counted by connection)": catalog.HANDSHAKE,
        "to the delivery": catalog.DELIVERY,
        "to the bytes": catalog.BYTES,
        "to the meaning": catalog.MEANING,
    }
    lines = []
    for title, group in groups.items():
        lines += [f"faults {title}:", *(f"  {name:18}{text}" for name, text in group.items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
