"""`actwright serve`, `probe`, `workcell run`, `fault-server`, `fault-proxy`: a policy on a socket, and robots that act on it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal.output import DONE, HELD, OUR_ERROR, say, tell

if TYPE_CHECKING:
    from components.deployment.probe import Knock

workcell_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Workcells: robots that act on a served policy.")

ServiceAddress = Annotated[str, typer.Argument(help="address of a policy service, such as http://127.0.0.1:3000", metavar="URL")]
TokenFile = Annotated[
    Path | None, typer.Option(help="file with the bearer token to show (default: ACTWRIGHT_TOKEN)", exists=True, dir_okay=False)
]
CaFile = Annotated[Path | None, typer.Option(help="certificates that may have signed the service's", exists=True, dir_okay=False)]


def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="champion, NAME@champion, NAME/VERSION, a recipe, or the folder of a bento, bundle or checkpoint", metavar="MODEL"
        ),
    ] = "champion",
    host: Annotated[str, typer.Option(help="address to bind; beyond loopback --tokens is needed")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port; 0: any free one", min=0, max=65_535)] = 3000,
    cert: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM", exists=True, dir_okay=False)] = None,
    key: Annotated[Path | None, typer.Option(help="TLS private key, PEM", exists=True, dir_okay=False)] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="who may ask what: JSON {sha256 of a token: {subject, role: observe|operate|admin}}", exists=True)
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="bounds of the gateway, JSON", exists=True, dir_okay=False)] = None,
) -> None:
    """Serve one packed policy to workcells until Ctrl-C; on loopback unless told otherwise.

    A checkpoint is packed first (golden probes recorded, contract written), once. Ready means that the packed model answered its
    golden probes as it did when it was packed.

    Example: actwright serve
    Example: actwright serve actwright-metaworld/3 --port 3001
    Example: actwright serve .actwright/store/train/9866/checkpoint
    Example: actwright serve champion --host 0.0.0.0 --tokens tokens.json --cert cell.pem --key cell.key
    """
    from components.deployment.gateway_service import Listening, running_gateway
    from flows.commands.operations.up import asked_to_stop
    from flows.pipeline.model_lookup import packed_model
    from flows.platform.wiring import open_house
    from model_core.spec.errors import SpecError

    house = open_house()
    has_tokens = bool(house.settings.tokens.get_secret_value() or house.settings.tokens_file)
    try:
        listening = Listening(host=host, port=port, certificate=cert, key=key, tokens=tokens, limits=limits, inherits_tokens=has_tokens)
        packed = packed_model(house, model)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    assert packed.bundle is not None  # packed_model packs what is not
    stop = asked_to_stop()
    log = house.settings.home.resolve() / "serve" / f"gateway-{port or 'any'}.log"  # two of one home keep a log each
    say(f"loading {packed.model_version} from {packed.bundle} ...")
    with running_gateway(packed.bundle, listening, log=log) as address:
        token = " --token-file FILE" if listening.needs_token else ""
        trusted = "" if cert is None else f" --ca-file {cert}"
        say(f"ready     {address.http}   workcells: {address.session}   log: {log}   (Ctrl-C stops it)")
        say(f"then try  actwright probe {address.http}{token}{trusted}")
        say(f"     or   actwright workcell run --robot metaworld --task {_a_task(packed.manifest)} --url {address.http}{token}{trusted}")
        tell(policy=address.http, session=address.session, model_version=packed.model_version, bundle=str(packed.bundle))
        stop.wait()
        say("stopping: running requests are answered, sessions are closed ...")
    say("stopped")


def probe(
    url: ServiceAddress,
    out: Annotated[Path, typer.Option(help="where the picture goes", metavar="PNG")] = Path("probe.png"),
    instruction: Annotated[str, typer.Option(help="what to ask for (default: the first word that the contract knows)")] = "",
    level: Annotated[str, typer.Option(help="reasoning level: full, reuse-depth, trace+action, action (default: the policy's own)")] = "",
    steer: Annotated[
        str, typer.Option(help="a line for the gripper to follow: pixels of the picture, such as '12,60 40,48 61,20'", metavar="X,Y ...")
    ] = "",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    timeout_s: Annotated[float, typer.Option(help="wait so long for each answer", min=0.1)] = 10.0,
) -> None:
    """Shake hands with a policy service, show its contract, and ask for one decision on a synthetic picture, with timings of every stage.

    The picture shows what was asked and answered. The robot's body in the handshake is the one that the contract names. Exits 3 when
    the service refuses to answer: the reason says what it takes.

    Example: actwright probe http://127.0.0.1:3000
    Example: actwright probe http://127.0.0.1:3000 --steer "12,60 40,48 61,20"
    Example: actwright probe https://cell-server:3000 --token-file token --ca-file ca.pem --level action --out action.png
    """
    from components.deployment.probe import ServiceUrl, contract_lines, view_of_probe
    from components.deployment.probe import probe as ask
    from components.drawing.decision import draw_decision
    from components.drawing.images import save_png
    from flows.pipeline.model_lookup import policies_here
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError

    try:
        ServiceUrl.of(url, before="actwright probe ")
        probed = ask(url, _knock(token_file, ca_file, timeout_s), instruction=instruction, level=level, line=steer)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    told = probed.told()
    say(f"service   {told['url']}: {told['model_version']}, bundle {told['bundle_digest'][:16] or '-'}, lease {told['lease_s']:g} s")
    for line in contract_lines(probed.contract, probed.ready.levels):
        say(line)
    stages = "  ".join(f"{name} {ms:.1f}" for name, ms in told.get("timing_ms", {}).items())
    say(f"took      connect {told['connect_ms']:.1f} ms, handshake {told['handshake_ms']:.1f} ms, answer {told['round_trip_ms']:.1f} ms")
    say(f"stages    {stages or '-'}   (ms)")
    refusal = f"{told.get('code')}: {told.get('reason')}"
    say(
        f"answer    {told['answer']}"
        + (f" ({refusal})" if told["answer"] == "refusal" else f" {told['actions'][0]} x {told['actions'][1]} actions")
    )
    codebooks = [packed.codebook for packed in policies_here(load_settings())]
    picture = save_png(draw_decision(view_of_probe(probed, codebooks)), out)
    say(f"picture   {picture}")
    tell(**told, picture=str(picture))
    if told["answer"] == "refusal":
        raise typer.Exit(HELD)


@workcell_app.command("run")
def workcell_run(
    task: Annotated[str, typer.Option(help="what the robot is to do, such as drawer-close-v3")],
    url: Annotated[str, typer.Option(help="the policy service, such as http://127.0.0.1:3000")],
    robot: Annotated[
        str,
        typer.Option(
            help="metaworld, strict (a simulated driver that forgives nothing; with --option contract=FILE it takes the body of that "
            "contract), or MODULE:FACTORY"
        ),
    ] = "metaworld",
    episodes: Annotated[int, typer.Option(help="how many attempts", min=1)] = 1,
    strategy: Annotated[
        str, typer.Option(help="how chunks are joined: sync, async, prefix or blend (default: sync; with --realtime: async)")
    ] = "",
    realtime: Annotated[bool, typer.Option("--realtime", help="the world does not wait for answers (default: the simulator does)")] = False,
    audit: Annotated[
        Path | None, typer.Option(help="keep an audit of every decision in this folder", metavar="DIR", file_okay=False)
    ] = None,
    commissioning: Annotated[Path | None, typer.Option(help="limits of this very cell, JSON", exists=True, dir_okay=False)] = None,
    watchdog: Annotated[
        Path | None, typer.Option(help="start a watchdog that shares this heartbeat file with the driver", metavar="FILE", dir_okay=False)
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="record episodes for training into this folder", metavar="DIR", file_okay=False)
    ] = None,
    steer: Annotated[
        Path | None,
        typer.Option(
            help='a drawn line, looked at all the time (with --realtime): {"points": [[x, y], ...]} in pixels; change it, and the arm '
            "is steered anew; remove it, and it is not",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    cell: Annotated[str, typer.Option(help="name of this workcell")] = "cell-1",
    first_seed: Annotated[int, typer.Option(help="episode i lays out scene first-seed + i", min=0)] = 950_000,
    deadline_ms: Annotated[float, typer.Option(help="a later answer is not used", min=1)] = 2000.0,
    result: Annotated[Path | None, typer.Option(help="write what happened to this JSON file", metavar="FILE")] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    option: Annotated[
        list[str] | None, typer.Option(help="passed to the robot's factory; may be given again", metavar="NAME=VALUE")
    ] = None,
) -> None:
    """Drive one robot with a served policy, in a process of its own that needs no torch; hold on any doubt.

    Shows live what the cell does: RUN, STRETCH or HOLD, successes so far, and how long answers take. Exits 0 when all episodes were
    run (whether or not they succeeded), 1 when the service or the robot was lost, 2 for wrong usage, 3 when the service or the cell
    refused the handshake and nothing moved, 4 after a SAFE_STOP: a person has to look before it is started again.

    Example: actwright workcell run --robot metaworld --task drawer-close-v3 --url http://127.0.0.1:3000 --episodes 10
    Example: actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --strategy prefix --realtime --audit audit
    Example: actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --realtime --steer line.json
    Example: actwright workcell run --robot strict --option contract=contract.json --task any --url http://127.0.0.1:3000
    """
    from components.deployment.cell_process import CellOrder, run_cell
    from components.deployment.probe import ServiceUrl
    from flows.platform.settings import load_settings
    from flows.terminal.workcell_panel import CellBoard
    from model_core.spec.errors import SpecError

    home = load_settings().home.resolve() / "workcell"
    try:
        order = CellOrder(
            robot=robot,
            task=task,
            url=ServiceUrl.of(url, before="--url ").session,
            cell=cell,
            episodes=episodes,
            first_seed=first_seed,
            strategy=strategy,
            is_realtime=realtime,
            deadline_ms=deadline_ms,
            audit=audit,
            commissioning=commissioning,
            watchdog=watchdog,
            spool=record,
            steering=steer,
            token_file=token_file,
            ca_file=ca_file,
            result=(result or home / f"{cell}.json").resolve(),
            options=tuple(option or ()),
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    log = home / f"{cell}.log"
    say(f"{cell} loads its robot and calls {order.url}; a service that is not there yet is waited for a little (log: {log})")
    board = CellBoard(task, episodes)
    with board.shown():
        code = run_cell(order, log=log, hear=board.hear, complain=say)
    told = _outcome(order.result) if code != 2 else {}
    if told:
        if told["episodes"]:
            say(
                f"{told['successes']} of {told['episodes']} solved, {told['decisions']} decisions, {told['holds']} holds, "
                f"answers p50 {told['p50_ms']:.0f} ms, p99 {told['p99_ms']:.0f} ms; details in {order.result}"
            )
        if audit is not None and told["episodes"]:
            say(f"then try  actwright audit list {audit}")
        shown = (
            "cell",
            "task",
            "episodes",
            "successes",
            "decisions",
            "refusals",
            "holds",
            "p50_ms",
            "p99_ms",
            "model_version",
            "contract_id",
        )
        tell(**{name: told.get(name) for name in shown}, result=str(order.result), refused_to_move=told.get("refused_to_move", ""))
    if code != DONE:
        raise typer.Exit(code if code in (1, 2, 3, 4) else OUR_ERROR)


def fault_server(context: typer.Context) -> None:
    """Serve a policy that misbehaves on purpose, seeded and scripted, for anybody's client: late, silent, wrong, gone.

    Everything after the name goes to `python -m serving.fault_injection server`; its own --help lists every fault.

    Example: actwright fault-server --help
    Example: actwright fault-server --port 8765 --fault drop@3 --fault nan@5-8 --seed 7
    """
    raise typer.Exit(_forwarded("server", context.args))


def fault_proxy(context: typer.Context) -> None:
    """Stand between a client and a service and make the link bad, seeded: latency, jitter, loss, half-open, cuts, corruption.

    Everything after the name goes to `python -m serving.fault_injection proxy`; its own --help lists every option.

    Example: actwright fault-proxy --help
    Example: actwright fault-proxy --upstream 127.0.0.1:3000 --port 3001 --latency-ms 40 --jitter-ms 20 --at 5:half-open
    """
    raise typer.Exit(_forwarded("proxy", context.args))


def add_serving(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command("serve")(serve)
    app.command("probe")(probe)
    app.add_typer(workcell_app, name="workcell")
    passing = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("fault-server", context_settings=passing)(fault_server)
    app.command("fault-proxy", context_settings=passing)(fault_proxy)


def _forwarded(what: str, args: list[str]) -> int:
    """Run the tool in the foreground. Ctrl-C, or SIGINT to us alone, is passed on and it ends by itself; it never outlives us."""
    from components.deployment.bento_service import tied_to_us

    # A shell starts what it puts into the background with SIGINT ignored, and the tool would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(tied_to_us([sys.executable, "-m", "serving.fault_injection", what, *args]), start_new_session=True) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)


def _knock(token_file: Path | None, ca_file: Path | None, timeout_s: float) -> Knock:
    from components.deployment.probe import Knock
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError
    from model_core.spec.protocol.trust import checked_token

    named, token = "ACTWRIGHT_TOKEN", load_settings().token.get_secret_value().strip()
    if token_file is not None:
        named, token = f"--token-file {token_file}", token_file.read_text(encoding="utf-8", errors="replace").strip()
        if not token:
            raise typer.BadParameter(f"{named} is empty; it holds the token, on one line")
    try:
        knock = Knock(token=checked_token(token, named), ca_file=ca_file, timeout_s=timeout_s)
        knock.tls("https://")  # a CA file that is none is told before anybody is called
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    return knock


def _outcome(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _a_task(manifest: Any) -> str:
    """A task that this model may know, for a line to type."""
    from flows.pipeline.recipes import RECIPES, get_recipe

    name = str(manifest.get("model_version", "")).partition("/")[0]
    for recipe in RECIPES:
        made = get_recipe(recipe)
        if made.package.model_name == name and made.collect.tasks:
            return made.collect.tasks[0]
    return "drawer-close-v3"
