"""`actwright fleet release upload|fetch|manifest`: releases in the object store, in a node's cache, and as pods of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

Key = Annotated[Path, typer.Option(help="public key (PEM) of who must have signed it", metavar="FILE", exists=True, dir_okay=False)]


def upload_command(
    folder: Annotated[Path, typer.Argument(help="the folder of a release", metavar="RELEASE", exists=True, file_okay=False)], key: Key
) -> None:
    """Put a verified release into the object store of this installation, for the nodes of a cluster.

    Example: actwright fleet release upload releases/0123456789abcdef --key keys/release.pub.pem
    """
    from components.adapters.signing.folder_signature import Trust
    from components.release.fleet.node_cache import upload_release
    from flows.pipeline.storage import storage
    from flows.platform.wiring import open_platform

    with storage(open_platform().settings) as (store, _):
        sent = upload_release(store, folder, Trust(public_key=key))
        print_line(f"{sent} bytes sent to {store.address}")
    print_result(sent_bytes=sent)


def fetch_command(
    digest: Annotated[str, typer.Argument(help="the 64 digits of the release", metavar="DIGEST")],
    to: Annotated[Path, typer.Option(help="this machine's cache of releases", metavar="FOLDER")],
    key: Key,
) -> None:
    """Bring a release from the object store into a machine's cache, by its digest, and verify it: digest, signature, every file.

    What an earlier release brought is not fetched again, and what is there already is done at once: the first container of a policy pod
    runs this.

    Example: actwright fleet release fetch DIGEST --to /cache --key keys/release.pub.pem
    """
    from components.adapters.signing.folder_signature import Trust
    from components.release.fleet.node_cache import fetch_release
    from flows.pipeline.storage import storage
    from flows.platform.wiring import open_platform

    with storage(open_platform().settings) as (store, _):
        found = fetch_release(store, digest, to, Trust(public_key=key))
    rate = found.fetched_bytes / max(found.seconds, 1e-3) / 2**20
    print_line(f"{found.folder}: {found.fetched_bytes} bytes fetched in {found.seconds:.1f} s ({rate:.0f} MiB/s), verification included")
    print_result(folder=str(found.folder), fetched_bytes=found.fetched_bytes, seconds=found.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """Which release, and between how many pods the autoscaler chooses."""

    digest: Annotated[str, typer.Argument(help="the 64 digits of the release", metavar="DIGEST")]
    replicas: Annotated[int, typer.Option(help="pods at least", min=1)] = 1
    most_replicas: Annotated[int, typer.Option(help="pods at most", min=1)] = 8
    worker_image: Annotated[str, typer.Option(help="image of worker.Dockerfile: fetches the release")] = "actwright-worker:0.1.0"
    serve_image: Annotated[str, typer.Option(help="image of infra/docker/serve.Dockerfile: code only")] = "actwright-serve:0.1.0"
    storage: Annotated[str, typer.Option(help="the object store, as ACTWRIGHT_STORAGE")] = "s3://object-store:8333"
    cache_claim: Annotated[str, typer.Option(help="claim of a volume of the node's own, for releases")] = "actwright-node-cache"


@from_options(ManifestOptions)
def manifest_command(options: ManifestOptions) -> None:
    """Print the policy service of one release for a cluster: Deployment, Service, autoscaler and disruption budget, as YAML.

    Example: actwright fleet release manifest DIGEST --most-replicas 4 | kubectl apply -f -
    """
    from dataclasses import asdict

    from components.adapters.kubernetes_release import ReleasePods, release_yaml
    from model_core.spec.errors import SpecError

    try:
        typer.echo(release_yaml(ReleasePods(**asdict(options))), nl=False)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
