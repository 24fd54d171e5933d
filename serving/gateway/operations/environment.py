"""The environment variables of a gateway process, beside those of its tokens (`model_core.access`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.gateway.operations.fleet_file import FLEET_VARIABLE, FleetFile, read_fleet_file
from serving.gateway.operations.kill_switch import FleetTies
from serving.gateway.operations.limits import GatewayLimits

BUNDLE_VARIABLE = "ACTWRIGHT_BUNDLE"
INSTANCE_VARIABLE = "ACTWRIGHT_INSTANCE"
LIMITS_VARIABLE = "ACTWRIGHT_LIMITS"
DIALECTS_VARIABLE = "ACTWRIGHT_DIALECTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEnvironment:
    """What the environment says.

    bundle: folder of a bundle that is not beside the packed code. instance: repeated in /v1/status, so that the parent of this
    process can tell that this process answers on its port. limits: from JSON. field_maps: a JSON file of the dialects' field
    names (`serving.gateway.dialects.fields`). fleet: from the file that ties this service to one.
    """

    bundle: Path | None = None
    instance: str = ""
    limits: GatewayLimits = field(default_factory=GatewayLimits)
    field_maps: Path | None = None
    fleet: FleetFile = field(default_factory=lambda: FleetFile(ties=FleetTies()))


def read_environment(environment: Mapping[str, str]) -> GatewayEnvironment:
    """Read and check the variables; raises SpecError naming a wrong limit, or what is wrong in the file of the fleet."""
    bundle, field_maps = environment.get(BUNDLE_VARIABLE), environment.get(DIALECTS_VARIABLE)
    fleet = environment.get(FLEET_VARIABLE)
    return GatewayEnvironment(
        bundle=Path(bundle) if bundle else None,
        instance=environment.get(INSTANCE_VARIABLE, ""),
        limits=GatewayLimits.from_text(environment.get(LIMITS_VARIABLE, "")),
        field_maps=Path(field_maps) if field_maps else None,
        fleet=read_fleet_file(Path(fleet)) if fleet else FleetFile(ties=FleetTies()),
    )
