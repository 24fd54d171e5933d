"""What `train.network` may name beside "tiny": presets of the published layout, a folder of it, or a hub id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from components.config.checks import one_of
from model_core.spec.errors import SpecError, require

# preset -> the published checkpoint whose shapes it has; "" where the weights begin at random
PRESETS: Mapping[str, str] = {
    "tiny-published": "",
    "molmoact-7b-d": "allenai/MolmoAct-7B-D-0812",
    "molmoact-7b-o": "allenai/MolmoAct-7B-O-0812",
}
TINY_PUBLISHED = "tiny-published"
# what may be chosen about "tiny-published"; tests hold it together with `model_core.network.presets.SmallSize`
SMALL_FIELDS = ("width", "layers", "heads", "kv_heads", "feed_forward", "projector", "vision_width", "vision_layers", "image_side")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_published(network: str | Mapping[str, Any]) -> bool:
    """Whether this is a network of the published layout, which reads and writes published sentences; else it is the tiny one."""
    if isinstance(network, str):
        return network != "tiny"
    return "preset" in network


def may_be_hub_id(network: str) -> bool:
    """Whether the text could name a checkpoint of the hub, where no folder of that name is here."""
    return _HUB_ID.fullmatch(network) is not None


def check_network(network: str | Mapping[str, Any]) -> None:
    """Raise `SpecError` for a name that is none, or fields that "tiny-published" has not. A folder is looked for when it is opened."""
    if isinstance(network, str):
        if "/" not in network:
            one_of("train.network", network, ("tiny", *PRESETS))
        return
    preset, fields = network["preset"], {name: value for name, value in network.items() if name != "preset"}
    require(preset == TINY_PUBLISHED or not fields, f"train.network: sizes are chosen of {TINY_PUBLISHED!r} only", got=preset)
    one_of("train.network.preset", str(preset), tuple(PRESETS))
    if strangers := sorted(set(fields) - set(SMALL_FIELDS)):
        raise SpecError(f"train.network: no field {strangers[0]!r} of {preset}; it has {', '.join(SMALL_FIELDS)}; leave it out")
    for name, value in fields.items():
        require(isinstance(value, int) and value > 0, f"train.network.{name}: expected a whole number above 0", got=repr(value))
