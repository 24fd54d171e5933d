"""What a cell tells its audit, from seeded noise, and MCAP files with a record changed, left out or moved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import Writer

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Chunk
from serving.workcell.audit.interface import ActionExecuted, Audit, DecisionMade, EpisodeBegun, EpisodeEnded
from tests.fakes import make_contract, make_observation


def begun(episode_id: str = "button-7", contract: PolicyContract | None = None) -> EpisodeBegun:
    made_for = contract or make_contract()
    return EpisodeBegun(
        t_s=100.0,
        episode_id=episode_id,
        cell="cell-1",
        task="button",
        instruction="push the button",
        seed=7,
        strategy="sync",
        model_version="echo/1",
        contract=made_for,
        contract_id=made_for.contract_id,
        bundle_digest="b" * 64,
        session_id="s1",
        epoch=1,
    )


def decision(
    seq: int, *, t_s: float, episode_id: str = "button-7", contract: PolicyContract | None = None, noise: bool = True
) -> DecisionMade:
    made_for = contract or make_contract()
    rng = np.random.default_rng(seq)
    observation = make_observation(made_for.embodiment)
    if noise:
        pictures = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in made_for.embodiment.cameras}
        observation = replace(observation, images=pictures)
    actions_KA = rng.uniform(-0.5, 0.5, (made_for.chunk_length, len(made_for.embodiment.action))).astype(np.float32)
    chunk = Chunk(
        session_id="s1",
        epoch=1,
        seq=seq,
        chunk_id=f"s1-1-{seq}",
        contract_id=made_for.contract_id,
        model_version="echo/1",
        actions_KA=actions_KA,
        control_hz=20.0,
        expires_ms=400.0,
        depth_codes_G=rng.integers(0, 128, 100),
        trace_N2=rng.integers(0, 256, (5, 2)),
        timing_ms={"model": 3.25},
    )
    return DecisionMade(
        t_s=t_s,
        answered_s=t_s + 0.04,
        episode_id=episode_id,
        session_id="s1",
        epoch=1,
        seq=seq,
        step=4 * (seq - 1),
        observation=observation,
        outcome="installed",
        chunk=chunk,
        level="full",
        age_ms={"front": 12.0},
        installed_KA=actions_KA,
    )


def tell_episode(
    audit: Audit, *, decisions: int = 3, episode_id: str = "button-7", contract: PolicyContract | None = None
) -> list[ActionExecuted]:
    """One whole episode; returns what was executed."""
    audit.begin_episode(begun(episode_id, contract))
    done: list[ActionExecuted] = []
    t_s = 100.0
    for seq in range(1, decisions + 1):
        made = decision(seq, t_s=t_s, episode_id=episode_id, contract=contract)
        audit.decision(made)
        assert made.chunk is not None
        for row in range(4):
            t_s += 0.05
            raw_A = made.chunk.actions_KA[row]
            step = ActionExecuted(
                t_s=t_s,
                episode_id=episode_id,
                step=len(done),
                mode="RUN",
                sent_A=np.clip(raw_A, -0.4, 0.4),
                chunk_id=made.chunk.chunk_id,
                row=row,
                session_id="s1",
                epoch=1,
                seq=seq,
                contract_id=made.chunk.contract_id,
                raw_A=raw_A,
            )
            audit.executed(step)
            done.append(step)
    audit.event(t_s, "mode", {"from": "RUN", "to": "HOLD"})
    audit.end_episode(EpisodeEnded(t_s=t_s, episode_id=episode_id, stop_reason="success", success=True, steps=len(done)))
    return done


def rewritten(source: Path, target: Path, change: Callable[[list[tuple[str, Message]]], list[tuple[str, Message]]]) -> Path:
    """A well-formed copy whose messages went through `change`: what somebody with the right tools could make."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    messages: list[tuple[str, Message]] = []
    with source.open("rb") as file:
        for item in StreamReader(file).records:
            if isinstance(item, Schema):
                schemas[item.id] = item
            elif isinstance(item, Channel):
                channels[item.id] = item
            elif isinstance(item, Message):
                messages.append((channels[item.channel_id].topic, item))
    with target.open("wb") as out:
        writer = Writer(out, enable_data_crcs=True)
        writer.start(profile="actwright-audit")
        numbers = {old: writer.register_schema(s.name, s.encoding, s.data) for old, s in schemas.items()}
        places = {c.topic: writer.register_channel(c.topic, c.message_encoding, numbers[c.schema_id]) for c in channels.values()}
        for topic, m in change(messages):
            writer.add_message(places[topic], m.log_time, m.data, m.publish_time, m.sequence)
        writer.finish()
    return target


def wait_until(claim: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait for something that the writing thread does."""
    give_up_at = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.01)
