"""Puts `actwright fleet ...` on the command line: keys, releases, the repository, a robot's agent, the controller and its rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.fleet.agent import agent_command
from flows.commands.fleet.controller import add_controller
from flows.commands.fleet.kill import kill_app
from flows.commands.fleet.quality import quality_command
from flows.commands.fleet.release import offer_command, release_app
from flows.commands.fleet.release_store import fetch_command, manifest_command, upload_command
from flows.commands.fleet.rollout import install_command, rollout_app
from flows.commands.fleet.shadow import shadow_command
from flows.commands.fleet.stops import drill_command, kill_list_command, resume_command
from flows.commands.operations.fleet_demo import demo_command
from flows.commands.operations.rollout_requests import add_requests
from flows.commands.tracking.ran import ran_command
from flows.terminal.output import print_line, print_result

_HELP = "A fleet of robots: releases, their keys and repository, the agent of a cell, the controller, rollouts, and the kill switch."
fleet_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
keys_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keys that sign releases and update metadata.")
repository_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The repository of update metadata that robots read.")


@keys_app.command("new")
def keys_new_command(
    folder: Annotated[Path, typer.Argument(help="where the key files are written", metavar="FOLDER")],
    site: Annotated[list[str], typer.Option(help="a site, once for each: it gets a key of its own")],
) -> None:
    """Make the keys of a fleet: one that signs releases, one for each role of the update metadata, one for each site.

    NAME.pem is private and readable by its owner alone, NAME.pub.pem is public. root.pem and targets.pem are needed only to make the
    repository: keep them on a machine without a network. A key is never replaced.

    Example: actwright fleet keys new keys --site lab --site plant
    """
    from components.adapters.signing.key_files import OFFLINE, make_keys

    names = make_keys(folder, list(dict.fromkeys(site)))
    print_line(f"{len(names)} keys in {folder}; move {' and '.join(f'{name}.pem' for name in OFFLINE)} offline once the repository is made")
    print_result(folder=str(folder), keys=names, offline=list(OFFLINE))


@keys_app.command("add")
def keys_add_command(
    folder: Annotated[Path, typer.Argument(help="a folder of `actwright fleet keys new`, or a new one", metavar="FOLDER")],
    site: Annotated[list[str] | None, typer.Option(help="a site that has no key there, once for each")] = None,
    role: Annotated[list[str] | None, typer.Option(help="root, targets, snapshot or timestamp, once for each")] = None,
) -> None:
    """Make keys that a folder does not hold yet: of a further site, or in place of a key that is lost or stolen.

    A key is never replaced where it is: copy the folder without that key's two files, add the key to the copy, and name both folders to
    `actwright fleet repository renew`.

    Example: actwright fleet keys add keys --site garage
    Example: actwright fleet keys add keys-2027 --role timestamp
    """
    from components.adapters.signing.key_files import ROLES, add_keys, site_role

    if unknown := sorted(set(role or ()) - set(ROLES)):
        raise typer.BadParameter(f"{unknown[0]!r} is no role; there are: {', '.join(ROLES)}")
    names = [*dict.fromkeys(role or ()), *(site_role(one) for one in dict.fromkeys(site or ()))]
    if not names:
        raise typer.BadParameter("name --site or --role")
    add_keys(folder, names)
    print_line(f"{', '.join(names)} in {folder}; robots follow with `actwright fleet repository renew`")
    print_result(folder=str(folder), keys=names)


@keys_app.command("identity")
def keys_identity_command(
    file: Annotated[Path, typer.Argument(help="where the private key is written; the public one beside it", metavar="FILE")],
) -> None:
    """Make the key by which one cell, or one controller, signs what it says (Ed25519).

    FILE is private and never leaves that computer; FILE's .pub.pem is given to the other side, by hand. A key is never replaced.

    Example: actwright fleet keys identity keys/cell-1.pem
    """
    from model_core.spec.fleet.signatures import key_id, make_key, public_path

    identity = key_id(make_key(file).public_key())
    print_line(f"{file} is private; give {public_path(file)} to the other side; key id {identity}")
    print_result(private=str(file), public=str(public_path(file)), key=identity)


@repository_app.command("new")
def repository_new_command(
    repository: Annotated[Path, typer.Argument(help="folder to be served to robots", metavar="REPOSITORY")],
    keys: Annotated[Path, typer.Option(help="folder of `actwright fleet keys new`, offline keys included", metavar="FOLDER")],
) -> None:
    """Make a repository without a release, with one delegation for each site whose key is in the folder.

    REPOSITORY/metadata/1.root.json is what each robot is given once, by hand: everything else follows from it.

    Example: actwright fleet repository new repository --keys keys
    """
    from components.adapters.signing.repository_files import Keys
    from components.adapters.signing.update_repository import make_repository

    sites = make_repository(repository, Keys(folder=keys))
    print_line(f"{repository}: sites {', '.join(sites)}; give each robot {repository / 'metadata' / '1.root.json'}")
    print_result(repository=str(repository), sites=sites)


@repository_app.command("refresh")
def repository_refresh_command(
    repository: Annotated[Path, typer.Argument(help="a repository", metavar="REPOSITORY")],
    keys: Annotated[Path, typer.Option(help="folder with snapshot.pem and timestamp.pem", metavar="FOLDER")],
) -> None:
    """Sign snapshot and timestamp again, so that robots go on to accept the repository; what is offered does not change.

    The timestamp lasts a day: run this more often than that, for example every hour. The list of a site lasts 90 days: with the site's key
    in the folder it is signed again in its second half. Told is what ends within 30 days and is not renewed by this command.

    Example: actwright fleet repository refresh repository --keys keys
    """
    from datetime import UTC, datetime, timedelta

    from components.adapters.signing.repository_files import Keys
    from components.adapters.signing.update_repository import refresh

    ends = refresh(repository, Keys(folder=keys))
    soon = datetime.now(UTC) + timedelta(days=30)
    print_line(f"{repository}: accepted by robots until {min(ends.values()).isoformat()}")
    for name, at in ends.items():
        if at < soon and name not in ("snapshot", "timestamp"):
            how = f"bring {name}.pem to {keys}" if name.startswith("site-") else "actwright fleet repository renew"
            print_line(f"{name} ends at {at.isoformat()}. Fix: {how}")
    print_result(
        repository=str(repository), expires=ends["timestamp"].isoformat(), ends={name: at.isoformat() for name, at in ends.items()}
    )


@repository_app.command("renew")
def repository_renew_command(
    repository: Annotated[Path, typer.Argument(help="a repository", metavar="REPOSITORY")],
    keys: Annotated[Path, typer.Option(help="folder of all private keys of roles, and the public keys of all sites", metavar="FOLDER")],
    former: Annotated[Path | None, typer.Option(help="folder of the keys that are replaced, root.pem at least", metavar="FOLDER")] = None,
) -> None:
    """Sign root and targets again: another year, a further site whose key is in the folder, or other keys than the former ones.

    Runs where the offline keys are. Robots follow from the 1.root.json that they have, and new ones are given the same file.
    A site with a new key needs its private key there, once. A stolen key is worth nothing as soon as this is served.

    Example: actwright fleet repository renew repository --keys keys
    Example: actwright fleet repository renew repository --keys keys-2027 --former keys
    """
    from components.adapters.signing.repository_files import Keys
    from components.adapters.signing.update_repository import renew

    done = renew(repository, Keys(folder=keys, former=former))
    print_line(
        f"{repository}: root {done.root}; added {', '.join(done.added) or 'no site'}; other keys of {', '.join(done.replaced) or 'no role'}"
    )
    print_result(repository=str(repository), root=done.root, added=list(done.added), replaced=list(done.replaced))


fleet_app.command("agent")(agent_command)
release_app.command("upload")(upload_command)
release_app.command("fetch")(fetch_command)
release_app.command("manifest")(manifest_command)
fleet_app.command("kill-list")(kill_list_command)
fleet_app.command("drill")(drill_command)
fleet_app.command("resume")(resume_command)
fleet_app.command("shadow")(shadow_command)
fleet_app.command("quality")(quality_command)
fleet_app.command("demo")(demo_command)
fleet_app.add_typer(keys_app, name="keys")
fleet_app.add_typer(release_app, name="release")
fleet_app.add_typer(repository_app, name="repository")
fleet_app.add_typer(rollout_app, name="rollout")
fleet_app.add_typer(kill_app, name="kill")
add_controller(fleet_app)
fleet_app.command("ran")(ran_command)
fleet_app.command("offer")(offer_command)
fleet_app.command("install")(install_command)
add_requests(fleet_app)


def add_fleet(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(fleet_app, name="fleet")
