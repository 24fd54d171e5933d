"""From what a person types to a packed policy: a folder, a registered version, an alias, or a recipe's champion."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal.output import print_line
from model_core.adoption.document import is_adopted
from model_core.contracts import chosen_contract, read_contracts
from model_core.network.int8.stored import is_int8_folder
from model_core.spec.errors import NotReady, SpecError, TrackingError

if TYPE_CHECKING:
    from components.config.records import ModelVersion
    from components.release.bundle import PackedPolicy
    from flows.platform.settings import Settings
    from flows.platform.wiring import Platform

CHAMPION = "champion"
_VERSION = re.compile(r"^(?P<name>[\w.-]+)/(?P<version>\d+)$")
_ALIAS = re.compile(r"^(?:models:/)?(?P<name>[\w.-]+)[@/]champion$")


def packed_model(platform: Platform, what: str, embodiment: str = "") -> PackedPolicy:
    """The packed policy that `what` names; a checkpoint is packed here and now, and kept for the next time.

    what: a folder (bento, bundle or checkpoint), "champion", "NAME@champion", "NAME/VERSION", or a recipe by name or file. embodiment:
    whose policy, where a checkpoint acts for several; a registered version is that of the embodiment whose contract was registered.
    Raises SpecError for a name that cannot be read, NotReady when there is no such model yet, CheckpointError for a damaged one, and where
    one of several embodiments must be named or is not there.
    """
    from components.release.bundle import find_packed

    if _is_folder(what):
        packed = _of_today(platform, find_packed(Path(what).expanduser()), embodiment)
    else:
        version = _VERSION.match(what)
        name = (version["name"], int(version["version"])) if version else _champion_of(platform, what)
        packed = _registered(platform, *name)
    if embodiment:
        chosen_contract(read_contracts(packed.checkpoint), embodiment, what)
    return packed


def checkpoint_of(platform: Platform, what: str) -> Path:
    """The folder of the weights of what `packed_model` names; a plain checkpoint is used as it is and not packed."""
    from components.release.bundle import find_packed

    if _is_folder(what):
        return find_packed(Path(what).expanduser()).checkpoint
    return packed_model(platform, what).checkpoint


def policies_here(settings: Settings) -> list[PackedPolicy]:
    """Everything that was packed in this home, newest first. Nothing is made where there is no home yet."""
    from components.release.bundle import BUNDLE_IN_BENTO, find_packed
    from model_core.bundle import MANIFEST

    home = settings.home.resolve()
    bundles = [path for packed in ("store/package", "serve/packed") for path in home.glob(f"{packed}/*/bento/{BUNDLE_IN_BENTO}/{MANIFEST}")]
    return [find_packed(path.parents[2]) for path in sorted(bundles, key=lambda path: path.stat().st_mtime, reverse=True)]


def _is_folder(what: str) -> bool:
    """Whether a person named a folder; the file of a recipe is none."""
    return Path(what).is_dir() or (not what.endswith(".json") and (Path(what).exists() or what.startswith((".", "/", "~"))))


def _champion_of(platform: Platform, what: str) -> tuple[str, int]:
    name, registry = _model_named(platform, what), platform.registry()
    champion = registry.champion(name)
    if champion is None:
        others = [found for other in _models_here(platform) if other != name and (found := registry.champion(other)) is not None]
        if what == CHAMPION and len(others) == 1:
            print_line(f"{name} has no champion; {others[0].name} is the only model here that has one")
            return others[0].name, others[0].version
        known = "; ".join(f"`actwright serve {other.name}@champion`" for other in others)
        raise NotReady(
            f"{name} has no champion yet; make one with `actwright run`, or serve a version: `actwright serve {name}/1`"
            + (f". Others have one here: {known}" if known else "")
        )
    return name, champion.version


def _model_named(platform: Platform, what: str) -> str:
    """The model that a person means: by its alias, its recipe (the loop's for "champion"), or its own name where it was packed here."""
    from flows.pipeline.recipes import RECIPES, get_recipe

    if alias := _ALIAS.match(what):
        return alias["name"]
    if what in (CHAMPION, *RECIPES) or what.endswith(".json"):
        return get_recipe("loop" if what == CHAMPION else what).package.model_name
    here = _models_here(platform)
    if what in here:
        return what
    raise SpecError(
        f"{what!r} is no folder, no recipe ({', '.join(RECIPES)}) and no model that was packed here ({', '.join(here) or 'none'}); "
        f"type `actwright serve champion`, `actwright serve NAME/3`, or the folder of a bundle"
    )


def _models_here(platform: Platform) -> list[str]:
    """The models of which a version was packed in this home, by name."""
    return sorted({str(step.record.get("model_version", "")).partition("/")[0] for step in platform.store.steps("package")})


def _registered(platform: Platform, name: str, version: int) -> PackedPolicy:
    """The checkpoint that the registry knows as this version: the bundle that was packed of it, else the checkpoint, packed now.

    Where a registry began again, or another one is named, bundles of other checkpoints stand here under the same label, so the registered
    digest decides. Only of a version that no registry knows the label does, where it names one checkpoint.
    """
    from components.artifacts.step_manifest import checkpoint_digest
    from components.release.bundle import find_packed

    label = f"{name}/{version}"
    labelled = [step for step in reversed(platform.store.steps("package")) if step.record.get("model_version") == label]
    is_plain = len({step.manifest.inputs.get("checkpoint") for step in labelled}) == 1
    versions = _versions(platform, name, is_needed=not is_plain)
    digest = versions[version].checkpoint_digest if version in versions else ""
    if not digest and is_plain:
        return _of_today(platform, find_packed(labelled[0].path / "bento"))
    if version not in versions:
        known = ", ".join(f"{name}/{number}" for number in versions) or "none"
        raise NotReady(f"no model {label} is registered here; there are: {known}")
    trained = next((step for step in reversed(platform.store.steps("train")) if step.record.get("checkpoint_digest") == digest), None)
    for step in labelled:
        packed = find_packed(step.path / "bento")
        is_of_it = trained is not None and step.manifest.inputs.get("checkpoint") == trained.digest
        if is_of_it or checkpoint_digest(packed.checkpoint) == digest:
            return _of_today(platform, packed)
    if trained is None:
        raise NotReady(
            f"{label} is registered, but its checkpoint {digest[:12]} is not in {platform.store.root}. "
            "Fix: run its recipe again with `actwright run`, or serve a folder: `actwright serve FOLDER`"
        )
    contracts = read_contracts(trained.path / "checkpoint")
    released = next((one for one, promise in contracts.items() if promise.contract_id == versions[version].contract_id), "")
    return _packed_here(platform, trained.path / "checkpoint", label, released if len(contracts) > 1 else "")


def _versions(platform: Platform, name: str, *, is_needed: bool) -> dict[int, ModelVersion]:
    """What the registry knows of a model, by number. One that does not answer is told of; where it `is_needed` that is an error."""
    try:
        return {one.version: one for one in platform.registry().versions(name)}
    except TrackingError as error:
        if is_needed:
            raise
        print_line(f"served by its label, because the registry was not reached: {error}")
        return {}


def _of_today(platform: Platform, found: PackedPolicy, embodiment: str = "") -> PackedPolicy:
    """A bundle whose probes are of this protocol; a plain checkpoint, or one that was packed before, is packed here."""
    from model_core.spec.contract import PROTOCOL_VERSION

    if found.bundle is None:
        folder = found.checkpoint.resolve()
        # ours are named "checkpoint", others by what they are
        name = folder.name if is_adopted(folder) or is_int8_folder(folder) else folder.parent.name
        return _packed_here(platform, found.checkpoint, name or "checkpoint", embodiment)
    probes = sorted((found.bundle / "probes").glob("*.observe"))
    if all(probe.read_bytes()[:1] == bytes([PROTOCOL_VERSION]) for probe in probes):
        return found
    print_line(f"{found.bundle} was packed for an older protocol; its checkpoint is packed again")
    return _packed_here(platform, found.checkpoint, found.model_version)


def _packed_here(platform: Platform, checkpoint: Path, model_version: str, embodiment: str = "") -> PackedPolicy:
    from components.artifacts.code_version import code_version
    from components.artifacts.step_manifest import checkpoint_files
    from components.config.recipe import PackageConfig
    from components.release.bundle import find_packed
    from components.release.package import package
    from model_core.spec.contract import digest_of

    named = [embodiment] if embodiment else []
    key = digest_of([checkpoint_files(checkpoint), model_version, code_version(("components.release.package",)), *named])[:16]
    place = platform.settings.home.resolve() / "serve" / "packed" / key
    if not (place / "done").is_file():
        print_line(f"packing {checkpoint} (once; it is kept in {place})")
        shutil.rmtree(place, ignore_errors=True)
        trained = chosen_contract(read_contracts(checkpoint), embodiment, checkpoint).reasoning.levels
        config = replace(PackageConfig(embodiment=embodiment), reasoning=trained[0])
        package(config, checkpoint, model_version, place)
        shutil.rmtree(place / "scratch", ignore_errors=True)
        (place / "done").touch()
    return find_packed(place / "bento")
