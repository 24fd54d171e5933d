"""`actwright fleet release create|show|verify|publish`, and `actwright fleet offer`: releases, and which of them rollouts may name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.fleet.controller_options import ControllerOptions, ordered
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from model_core.spec.fleet.release import Release

release_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Releases: an immutable, signed policy with its evidence.")
Folder = Annotated[Path, typer.Argument(help="the folder of a release", metavar="RELEASE")]
PublicKey = Annotated[Path | None, typer.Option("--key", help="public key (PEM) of who must have signed it", metavar="FILE")]
Authorities = Annotated[
    list[Path] | None,
    typer.Option("--authority", help="instead of a key: certificate (PEM) of an authority, once for each", metavar="FILE"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """What `create` is told. certificate, chain: of the key, where a certificate signs."""

    model: Annotated[str, typer.Argument(help="a registered version such as actwright/3, a recipe, or a folder", metavar="MODEL|BUNDLE")]
    key: Annotated[Path, typer.Option(help="private key (PEM) that signs it: release.pem of `actwright fleet keys new`", metavar="FILE")]
    to: Annotated[Path, typer.Option(help="where releases are kept, each under its digest", metavar="FOLDER")] = Path("releases")
    verdict: Annotated[
        Path | None, typer.Option(help="the gate's verdict.json (default: found in this home)", metavar="FILE", exists=True)
    ] = None
    base: Annotated[
        Path | None, typer.Option(help="release whose files are referred to by digest and not carried again", metavar="RELEASE")
    ] = None
    override: Annotated[str, typer.Option(help="name of the person who lets it reach robots though the gate does not promote it")] = ""
    reason: Annotated[str, typer.Option(help="why; it stays in the signed document")] = ""
    offline: Annotated[
        str, typer.Option(help="what a cell does that lost its controller: stop, finish (the episode), or episodes:N (then stop)")
    ] = "finish"
    offline_after_s: Annotated[float, typer.Option(help="after how many seconds without the controller that holds")] = 86_400.0
    minimum_agent: Annotated[str, typer.Option(help="oldest version that may run it on a robot (default: the one that makes it)")] = ""
    certificate: Annotated[Path | None, typer.Option(help="certificate (PEM) of the key", metavar="FILE", exists=True)] = None
    chain: Annotated[list[Path] | None, typer.Option(help="certificates above it, once for each", metavar="FILE", exists=True)] = None


@release_app.command("create")
@from_options(CreateOptions)
def create_command(options: CreateOptions) -> None:
    """Make a signed release of a packed policy: weights, contract, language, depth decoder, probes, verdict, bill of materials, card.

    Without a verdict that promotes it can be made and looked at, and is published only with --override and --reason.

    Example: actwright fleet release create actwright/3 --key keys/release.pem
    """
    from components.adapters.signing.folder_signature import Signer
    from components.release.fleet.create import create_release
    from flows.commands.fleet.release_facts import facts_of
    from flows.pipeline.model_lookup import packed_model
    from flows.platform.wiring import open_platform
    from model_core.spec.fleet.release import offline_rule

    if bool(options.override) != bool(options.reason):
        raise typer.BadParameter("--override and --reason belong together")
    offline = offline_rule(options.offline, options.offline_after_s)
    platform = open_platform()
    packed = packed_model(platform, options.model)
    facts = facts_of(
        platform,
        packed,
        verdict=options.verdict,
        override=(options.override, options.reason),
        base=options.base,
        minimum_agent=options.minimum_agent,
    )
    signer = Signer(private_key=options.key, certificate=options.certificate, chain=tuple(options.chain or ()))
    made = create_release(packed, options.to, signer, replace(facts, offline=offline))
    print_line(f"{made.folder} ({'written' if made.is_new else 'there already'})")
    _tell(made.release)
    print_result(**_result(made.release), folder=str(made.folder), is_new=made.is_new)


@release_app.command("show")
def show_command(folder: Folder) -> None:
    """Show what a release says of itself; nothing is verified.

    Example: actwright fleet release show releases/0123456789abcdef
    """
    from model_core.spec.fleet.release import read_release

    release = read_release(folder)
    _tell(release)
    print_result(**_result(release))


@release_app.command("verify")
def verify_command(
    folder: Folder,
    key: PublicKey = None,
    authority: Authorities = None,
    base: Annotated[Path | None, typer.Option(help="the release that it refers to, to check those files too", metavar="RELEASE")] = None,
) -> None:
    """Prove who signed a release, and that no byte of it was changed, added or taken out; exits 1 and says what is wrong where not.

    Example: actwright fleet release verify releases/0123456789abcdef --key keys/release.pub.pem
    """
    from components.adapters.signing.folder_signature import Trust
    from components.release.fleet.verify import verify_release

    if (key is None) == (not authority):
        raise typer.BadParameter("name --key FILE, or --authority FILE")
    release = verify_release(folder, Trust(public_key=key, authorities=tuple(authority or ())), base)
    is_whole = release.base is None or base is not None
    _tell(release)
    print_line("verified" if is_whole else "verified, apart from the files of its base; name it with --base to check them too")
    print_result(**_result(release), verified=True, base_verified=is_whole)


@release_app.command("publish")
def publish_command(
    folder: Folder,
    repository: Annotated[Path, typer.Argument(help="folder of `actwright fleet repository new`", metavar="REPOSITORY")],
    site: Annotated[list[str], typer.Option(help="a site that is offered it, once for each")],
    keys: Annotated[Path, typer.Option(help="folder with the keys of these sites, snapshot.pem and timestamp.pem", metavar="FOLDER")],
    authority: Authorities = None,
) -> None:
    """Offer a release to the robots of sites, visible to all of them at once, after it was verified.

    One that the gate does not promote is refused unless it names the person who overrides. The folder's release.pub.pem
    must have signed it, or a certificate under --authority.

    Example: actwright fleet release publish releases/0123456789abcdef repository --keys keys --site lab
    """
    from components.adapters.signing.folder_signature import Trust
    from components.adapters.signing.repository_files import Keys
    from components.release.fleet.publish import publish

    trust = Trust(authorities=tuple(authority)) if authority else Trust(public_key=keys / "release.pub.pem")
    offer = publish(folder, repository, site, Keys(folder=keys), trust)
    _tell(offer.release)
    there = [one for one in offer.sites if one not in offer.added]
    print_line(f"offered to {', '.join(offer.added) or 'no further site'}" + (f"; already to {', '.join(there)}" if there else ""))
    print_line(f"a robot fetches {offer.fetch_bytes} bytes, less what it has, and the metadata")
    sites = {"sites": list(offer.sites), "added": list(offer.added), "fetch_bytes": offer.fetch_bytes}
    print_result(**_result(offer.release), **sites)


@release_app.command("withdraw")
def withdraw_command(
    digest: Annotated[str, typer.Argument(help="the 64 digits of the release", metavar="DIGEST")],
    repository: Annotated[Path, typer.Argument(help="folder of `actwright fleet repository new`", metavar="REPOSITORY")],
    site: Annotated[list[str], typer.Option(help="a site that is offered it no more, once for each")],
    keys: Annotated[Path, typer.Option(help="folder with the keys of these sites, snapshot.pem and timestamp.pem", metavar="FOLDER")],
) -> None:
    """Offer a release to sites no more: no further cell takes it in. Where it runs it goes on; `actwright fleet kill` ends that.

    Its number stays taken, and `actwright fleet release publish` offers it again under that number.

    Example: actwright fleet release withdraw DIGEST repository --keys keys --site lab
    """
    from components.adapters.signing.repository_files import Keys
    from components.release.fleet.publish import withdraw
    from model_core.spec.settings import digest as whole_digest

    found = withdraw(whole_digest("digest", digest), repository, site, Keys(folder=keys))
    print_line(f"offered no more to {', '.join(found)}" if found else f"{', '.join(site)}: it was not offered")
    print_result(digest=digest, sites=list(found))


def _tell(release: Release) -> None:
    from model_core.spec.fleet.release import described_rule, part_of, who_allows

    print_line(f"release {release.digest}")
    print_line(
        f"{release.model_version}, contract {release.contract_id}, checkpoint {release.checkpoint[:16]}, agent {release.minimum_agent}+"
    )
    print_line(who_allows(release))
    print_line(f"a cell that did not hear of its controller for {release.offline.after_s:g} s: {described_rule(release.offline)}")
    if release.judgement and release.judgement.ledger:
        print_line(f"trials: study {release.judgement.study}, last hash {release.judgement.ledger}")
    files = release.all_files
    for part in dict.fromkeys(part_of(path) for path in sorted(files)):
        chosen = [path for path in files if part_of(path) == part]
        referred = sum(path not in release.files for path in chosen)
        size = sum(files[path].size for path in chosen)
        print_line(f"  {part}: {len(chosen)} files, {size} bytes" + (f", {referred} of them from the base" if referred else ""))
    if release.base:
        print_line(f"base: release {release.base.digest}")


def _result(release: Release) -> dict[str, Any]:
    from model_core.spec.documents import to_document

    document = to_document(release)
    names = ("model_version", "contract_id", "checkpoint", "minimum_agent", "judgement", "override")
    told = {name: document[name] for name in names}
    told |= {"digest": release.digest, "promoted": release.is_promoted, "may_reach_robots": release.may_reach_robots}
    return told | {"files": len(release.files), "bytes": release.carried_bytes, "base": release.base.digest if release.base else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferOptions(ControllerOptions):
    """Which release."""

    release: Annotated[Path, typer.Argument(help="folder of a release", metavar="RELEASE", exists=True, file_okay=False)]


@from_options(OfferOptions)
def offer_command(options: OfferOptions) -> None:
    """Let rollouts name a release; robots take it only where their site's update metadata offers it too.

    Example: actwright fleet offer releases/0123456789abcdef
    """
    from model_core.spec.fleet.release import check_may_reach_robots, read_release, who_allows

    release = read_release(options.release)
    check_may_reach_robots(release)
    body = {"digest": release.digest, "model_version": release.model_version, "allowed_by": who_allows(release)}
    if release.override:
        body |= {"override_name": release.override.name, "override_reason": release.override.reason}
    done = ordered(options, "/v1/releases", body)
    print_result(digest=release.digest, model_version=release.model_version, head=done["head"])
