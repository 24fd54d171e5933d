"""Open the robot logs of a recipe's source: a folder with MCAP files and the mapping file that makes episodes of them."""

from __future__ import annotations

from pathlib import Path

from components.config.source_config import SourceConfig
from components.data.sources.include import chosen_rows
from components.data.sources.mcap.mapping import read_mapping
from components.data.sources.mcap.source import McapSource
from model_core.spec.documents import identity_document
from model_core.spec.errors import SpecError

MAPPING = "mapping.yaml"
_IN_THE_MAPPING = ("cameras", "actions", "proprio", "rate_hz")
_SETTINGS = ("include", "tasks")  # of the source, that decide which episodes there are; the mapping and the embodiment say the rest


def open_mcap(cfg: SourceConfig) -> McapSource:
    """The logs as episodes. options: mapping, the name of the mapping file in the folder ("mapping.yaml").

    The mapping lies in the folder so that what the folder holds decides what is read. Raises `SpecError` or `DatasetError` for what is
    missing or does not fit, before any image is read.
    """
    from components.data.embodiments.file import find_file, read_embodiment

    where = f"source {cfg.name!r}"
    folder, name = Path(cfg.path).expanduser(), str(cfg.options.get("mapping", MAPPING))
    if unknown := sorted(set(cfg.options) - {"mapping"}):
        raise SpecError(f"{where}: unknown option {unknown[0]!r}, expected mapping. Fix: leave it out")
    if cfg.hub or not cfg.path or not folder.is_dir():
        raise SpecError(
            f"{where}: expected the folder of the logs, got {cfg.path or cfg.hub!r}. Fix: set path to a folder with logs and {MAPPING}"
        )
    if Path(name).name != name or not (folder / name).is_file():
        raise SpecError(f"{where}: there is no mapping file {name!r} in {folder}. Fix: draft one, `actwright data topics FILE --draft OUT`")
    if not cfg.embodiment:
        raise SpecError(f"{where}: a log does not describe its robot. Fix: name its embodiment file in the recipe's source")
    twice = [field for field in _IN_THE_MAPPING if getattr(cfg, field)] + (["stride"] if cfg.stride != 1 else [])
    if twice:
        raise SpecError(f"{where}: {', '.join(twice)} of logs are in their mapping and embodiment. Fix: leave it out of the recipe")
    settings = {field: value for field, value in identity_document(cfg).items() if field in _SETTINGS}
    return McapSource(
        folder,
        read_mapping(folder / name),
        read_embodiment(find_file(cfg.embodiment)),
        name=cfg.name,
        chosen=lambda rows: chosen_rows(cfg, rows),
        settings=settings,
    )
