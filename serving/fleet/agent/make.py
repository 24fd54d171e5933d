"""From settings to an agent: its parts, put together."""

from __future__ import annotations

from collections.abc import Mapping

from model_core.spec.errors import SpecError
from model_core.spec.fleet.signatures import read_private, read_public, trusted
from serving.fleet.agent.agent import Agent, Clock
from serving.fleet.agent.agent_state import SLOTS, StateFile
from serving.fleet.agent.controller_link import ControllerLink
from serving.fleet.agent.settings import AgentSettings, token_header
from serving.fleet.agent.shadowing import Shadowing
from serving.fleet.agent.taking import Taking
from serving.fleet.agent.update import Update
from serving.fleet.intake.file_store import FileStore
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.policy_service import PolicyService
from serving.fleet.intake.shared_service import SharedService, SlotService
from serving.fleet.intake.slots import Slots, Trust
from serving.fleet.intake.update_metadata import UpdateMetadata


def make_agent(settings: AgentSettings, clock: Clock) -> Agent:
    """The agent of these settings. Raises `SpecError` for a key or a token that cannot be read."""
    home, state = settings.home.resolve(), StateFile(settings.home / "agent.json")
    client = HttpClient(timeout_s=settings.timeout_s, ca_file=settings.ca_file)
    store = FileStore(
        home / "store", bytes_per_s=settings.bytes_per_s, spare_bytes=settings.spare_bytes, clock=clock.up_s, sleep=clock.sleep
    )
    slots = Slots(home / "slots", store, Trust(public_key=settings.release_key, authorities=settings.authorities))
    services = _services(settings, slots, HttpClient(timeout_s=5.0, headers=token_header(settings.service_token_file)))
    metadata = UpdateMetadata(
        repository=settings.repository, site=settings.site, root=settings.root, folder=home / "metadata", client=client
    )
    taking, beside = (
        Taking(metadata=metadata, store=store, slots=slots, state=state, files=client, clock=clock.up_s) for _ in ("update", "shadow")
    )
    update = Update(
        taking=taking,
        slots=slots,
        services=services,
        state=state,
        cell_files=settings.cell_files,
        clock=clock.up_s,
        patience_s=settings.patience_s,
    )
    cell = settings.cell if settings.services else ""  # a service of its own answers no other
    shadowing = Shadowing(taking=beside, slots=slots, services=services, state=state, clock=clock.moment, cell=cell)
    return Agent(settings, state, _controller(settings), update, clock, shadowing)


def _services(settings: AgentSettings, slots: Slots, client: HttpClient) -> Mapping[str, SlotService]:
    """Of each slot: its own, or what it has of those that the cells of this computer share."""
    shared = settings.services.resolve() if settings.services else None
    names = dict(zip(SLOTS, ("0", "1") if shared else SLOTS, strict=True))
    folder = shared or settings.home.resolve() / "services"
    own = {
        slot: PolicyService(
            folder=folder / names[slot], command=settings.service, bundle=slots.bundle(slot), port=settings.port(slot), client=client
        )
        for slot in SLOTS
    }
    if shared is None:
        return own
    places = tuple(own.values())
    return {slot: SharedService(folder=shared, cell=settings.cell, slot=slot, places=places, bundle=slots.bundle(slot)) for slot in SLOTS}


def _controller(settings: AgentSettings) -> ControllerLink:
    try:
        theirs = read_public(settings.controller_key.read_text(encoding="utf-8"), str(settings.controller_key))
    except OSError as error:
        raise SpecError(
            f"{settings.controller_key} cannot be read: {error.strerror}. Fix: bring the controller's public key there"
        ) from error
    headers = token_header(settings.controller_token_file)
    return ControllerLink(
        controller=settings.controller,
        key=read_private(settings.key),
        trusted=trusted(theirs),
        client=HttpClient(timeout_s=settings.timeout_s, ca_file=settings.ca_file, headers=headers),
    )
