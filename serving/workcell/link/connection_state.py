"""One cell's side of the protocol, without sockets, threads or a clock: messages and the time are passed in.

    DOWN -> dialling -> greeting (HELLO sent) -> UP (READY came) -> DOWN ...        every dial is a new epoch

One request is open at a time; a newer one replaces it, and an observation that is still waiting to be written is dropped,
never queued. A request whose deadline passed is dead: CANCEL is sent, and whatever comes for it is counted and dropped. So
are duplicates, other sessions, other epochs and what has expired. After `max_dead` dead requests in a row, a broken
message or a silent peer the connection is cut and dialled again; inside an episode only the same model and contract will do.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from model_core.spec.conversion import compare, unagreed
from model_core.spec.protocol.wire import Chunk, Control, End, Hello, Message, Observe, Part, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.workcell.link.link_types import LinkEvent, LinkSettings, LinkTally, ModelIdentity, ObserveRequest, OpenRequest

_FATAL = {RefusalCode.CONTRACT, RefusalCode.AUTH, RefusalCode.KILLED}  # a handshake refused for these is not tried again by itself
_MAX_EVENTS = 256


class LinkCore:
    """The rules. Not thread-safe: the caller that moves bytes also holds the lock."""

    def __init__(self, settings: LinkSettings) -> None:
        self.settings, self.tally = settings, LinkTally()
        self.ready: Ready | None = None
        self.epoch = 0
        self.last_heard_s = float("-inf")
        self.wants_cut = False
        self.is_denied = False
        self._state: Literal["down", "dialling", "greeting", "up"] = "down"
        self._dialled_at_s = self._opened_at_s = 0.0
        self._next_dial_s = float("-inf")
        self._backoff_s = settings.first_backoff_s
        self._seq = self._dead = self._answered = self._chunks_here = 0
        self._open: OpenRequest | None = None
        self._dead_seqs: deque[int] = deque(maxlen=64)
        self._controls: deque[Message] = deque(maxlen=32)
        self._heard: deque[LinkEvent] = deque(maxlen=_MAX_EVENTS)
        self._pinned: ModelIdentity | None = None
        self._pinged_at_s: float = float("-inf")
        self._ping_seq = 0
        self._lease_until_s, self._lease_asked_s = float("inf"), float("-inf")

    # --- the cell's side ------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """The handshake is done and the connection is usable."""
        return self._state == "up" and not self.wants_cut

    @property
    def open_seq(self) -> int:
        """The open request's number; 0 without one."""
        return 0 if self._open is None else self._open.seq

    def ask(self, question: ObserveRequest, now_s: float) -> int:
        """Ask; returns the number of the request, or 0 while the link is down. An open request is given up for it."""
        if not self.is_up or self.ready is None:
            return 0
        if self._open is not None:
            if not self._open.is_written:
                self.tally.replaced += 1
            self._dead_seqs.append(self._open.seq)  # the service drops it by itself when the newer one comes
        self._seq += 1
        self.tally.asked += 1
        self._open = OpenRequest(seq=self._seq, question=question, asked_at_s=now_s)
        return self._seq

    def give_up(self, seq: int) -> None:
        """The cell does not want this answer any more."""
        if self._open is not None and self._open.seq == seq:
            self._kill_open()

    def pin(self, model_version: str, contract_id: str) -> None:
        """From now on only this model under this contract will do."""
        self._pinned = ModelIdentity(model_version, contract_id, "" if self.ready is None else self.ready.bundle_digest)

    def unpin(self) -> None:
        """Between episodes any model will do whose contract fits."""
        self._pinned = None

    def end_episode(self, episode_id: str, stop_reason: str, *, success: bool) -> None:
        """Tell the service, if it is there."""
        self._kill_open(cancel=False)
        self.unpin()
        if self.ready is not None and self._state == "up":
            end = End(session_id=self.ready.session_id, epoch=self.epoch, episode_id=episode_id, stop_reason=stop_reason, success=success)
            self._controls.append(end)

    def renew(self, now_s: float, reason: str) -> None:
        """End this session and begin another one: the next answer is of a new epoch."""
        self.is_denied = False
        if self._state != "down":
            self._cut(now_s, reason, dial_at_s=now_s)
        else:
            self._next_dial_s = now_s

    @property
    def has_news(self) -> bool:
        """`poll` would return something."""
        return bool(self._heard)

    def poll(self) -> list[LinkEvent]:
        """What happened since the last call, oldest first."""
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def put_back(self, events: list[LinkEvent]) -> None:
        """The next `poll` gives these first."""
        self._heard = deque([*events, *self._heard], maxlen=_MAX_EVENTS)

    # --- the transport's side ---------------------------------------------------------------------------------------

    def may_dial(self, now_s: float) -> bool:
        """Time to open a connection."""
        return self._state == "down" and not self.is_denied and now_s >= self._next_dial_s

    def dialling(self, now_s: float) -> int:
        """A connection is being opened; returns its epoch."""
        self.epoch += 1
        self._state, self._dialled_at_s, self.wants_cut = "dialling", now_s, False
        self._controls.clear()
        self._answered = self._chunks_here = self._dead = 0
        return self.epoch

    def opened(self, now_s: float) -> None:
        """The connection stands: HELLO goes first."""
        settings = self.settings
        self._state, self._opened_at_s = "greeting", now_s
        hello = Hello(
            cell=settings.cell,
            epoch=self.epoch,
            embodiment=settings.embodiment,
            software=settings.software,
            expected_contract_id=settings.expected_contract_id,
            strategies=settings.strategies,
            accepts_parts=settings.accepts_parts,
            replan_hz=settings.replan_hz,
        )
        self._controls.append(hello)

    def refused_at_door(self, now_s: float, code: RefusalCode, reason: str) -> None:
        """The connection was refused before a word was said (a wrong token)."""
        self._deny(now_s, code, reason, retryable=False, retry_after_s=0.0)

    def closed(self, now_s: float, reason: str) -> None:
        """The connection is gone, or could not be opened."""
        was, self._state, self.wants_cut = self._state, "down", False
        self._kill_open(cancel=False)
        self._controls.clear()
        self._lease_until_s = float("inf")
        if was != "down":
            self._plan_dial(now_s)
            self._hear(LinkEvent(kind="down", t_s=now_s, reason=reason, is_retryable=True))

    def outgoing(self, now_s: float) -> Message | None:
        """The next message to write, controls before observations; None when there is nothing."""
        if self.wants_cut:
            return None
        if self._controls:
            return self._controls.popleft()
        return self._observe(now_s)

    def unsendable(self, seq: int, reason: str, now_s: float) -> None:
        """Request `seq` cannot be encoded as a message: refused on this side, and the connection stays up."""
        if self.open_seq == seq:
            self._open = None
            self._refused(now_s, seq, RefusalCode.DECODE.value, f"the question cannot be sent: {reason}", retryable=False)

    def take(self, frame: Message | str, now_s: float) -> None:
        """One frame came that `read_frame` has read: a message, or what is wrong with it."""
        if isinstance(frame, str):
            self._cut(now_s, f"framing: {frame}")
        else:
            self.heard(frame, now_s)

    def heard(self, message: Message, now_s: float) -> None:
        """One message came."""
        if self._state not in ("greeting", "up") or self.wants_cut:
            return
        self.last_heard_s = now_s
        if self._state == "greeting":
            self._greeted(message, now_s)
        elif isinstance(message, Chunk):
            self._take_chunk(message, now_s)
        elif isinstance(message, Reject):
            self._take_reject(message, now_s)
        elif isinstance(message, Part):
            if self._is_ours(message) and message.seq == self.open_seq:
                self._hear(LinkEvent(kind="part", t_s=now_s, seq=message.seq, part=message))
        elif isinstance(message, Control):
            self._take_control(message, now_s)
        else:
            self._cut(now_s, f"framing: {type(message).__name__} in mid-session")

    def tick(self, now_s: float) -> None:
        """Let time pass: deadlines, heartbeats, lease."""
        settings = self.settings
        if self._state in ("dialling", "greeting"):
            if now_s - self._dialled_at_s > settings.connect_timeout_s:
                self._cut(now_s, f"no READY within {settings.connect_timeout_s:g} s")
            return
        if self._state != "up" or self.wants_cut:
            return
        if self._open is not None and now_s - self._open.asked_at_s >= settings.deadline_s:
            self._late(now_s)
        if now_s - self.last_heard_s >= 1.5 * settings.heartbeat_s:
            self._cut(now_s, f"dead peer: silent for {now_s - self.last_heard_s:.2f} s")
            return
        if now_s - self._pinged_at_s >= settings.heartbeat_s / 2:
            self._ping_seq += 1
            self._pinged_at_s = now_s
            self.say("PING", seq=self._ping_seq)
        self._tend_lease(now_s)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _observe(self, now_s: float) -> Observe | None:
        waiting, ready = self._open, self.ready
        if waiting is None or waiting.is_written or ready is None or self._state != "up":
            return None
        waiting.is_written = True
        self.tally.sent += 1
        question, waited_ms = waiting.question, 1e3 * max(now_s - waiting.question.taken_at_s, 0.0)
        # The service must give up a little before we do, so that its reason still arrives.
        left_ms = 900.0 * max(self.settings.deadline_s - (now_s - waiting.asked_at_s), 0.0)
        committed_DA = question.committed_DA if question.committed_DA is not None and len(question.committed_DA) else None
        return Observe(
            session_id=ready.session_id,
            epoch=self.epoch,
            seq=waiting.seq,
            episode_id=question.episode_id,
            step=question.step,
            deadline_ms=left_ms,
            observation=question.observation,
            age_ms={name: age + waited_ms for name, age in question.age_ms.items()},
            level=question.level,
            previous_chunk_id=question.previous_chunk_id,
            consumed=question.consumed,
            committed_DA=committed_DA,
            steering=question.steering,
            edit=question.edit,
        )

    def _greeted(self, message: Message, now_s: float) -> None:
        if isinstance(message, Reject):
            self._deny(now_s, message.code, message.reason, message.retryable, message.retry_after_ms / 1e3, message.details)
            return
        if not isinstance(message, Ready) or message.epoch != self.epoch:
            self._cut(now_s, f"framing: expected READY of epoch {self.epoch}, got {type(message).__name__}")
            return
        body = self.settings.embodiment
        refusals = [m.explain() for m in compare(message.contract, body).refusals] or unagreed(message.contract, body, message.conversions)
        if refusals:  # the service should have seen it; the cell does not rely on that
            reason = "this cell is not what the policy was made for: " + refusals[0]
            self._deny(now_s, RefusalCode.CONTRACT, reason, retryable=False, retry_after_s=0.0, details=tuple(refusals))
            return
        now = ModelIdentity(message.model_version, message.contract.contract_id, message.bundle_digest)
        if self._pinned is not None and now.is_another(self._pinned):
            reason = f"the service now runs {now}, this episode began with {self._pinned}"
            self._deny(now_s, RefusalCode.STALE_EPOCH, reason, retryable=True, retry_after_s=0.0)
            return
        self.ready, self._state = message, "up"
        self._backoff_s = self.settings.first_backoff_s
        self._pinged_at_s = now_s
        self.tally.connections += 1
        self._lease_until_s = now_s + message.lease_s if message.lease_s > 0 else float("inf")
        self._lease_asked_s = now_s
        self._hear(LinkEvent(kind="up", t_s=now_s, ready=message, asked_at_s=self._opened_at_s))

    def _is_ours(self, message: Chunk | Reject | Part | Control) -> bool:
        return self.ready is not None and (message.session_id, message.epoch) == (self.ready.session_id, self.epoch)

    def _take_chunk(self, chunk: Chunk, now_s: float) -> None:
        waiting = self._open
        if not self._is_ours(chunk):
            self._drop("stale-epoch" if chunk.epoch != self.epoch else "foreign")
        elif waiting is None or chunk.seq != waiting.seq or not waiting.is_written:
            answered = 0 < chunk.seq <= self._answered and chunk.seq not in self._dead_seqs
            self._drop("late" if chunk.seq in self._dead_seqs else "duplicate" if answered else "unasked")
        else:
            self._open, self._dead, self._answered = None, 0, chunk.seq
            stood_still_s = now_s - waiting.asked_at_s if self.settings.world_waits else 0.0
            expires_at_s = waiting.question.captured_at_s + stood_still_s + chunk.expires_ms / 1e3
            wrong = self._wrong_model(chunk)
            if wrong:
                self._drop("other-model")
                self._refused(now_s, chunk.seq, RefusalCode.STALE_EPOCH.value, wrong, retryable=False)
            elif now_s >= expires_at_s:
                self._drop("expired")
                self._refused(now_s, chunk.seq, RefusalCode.DEADLINE.value, f"it expired {1e3 * (now_s - expires_at_s):.0f} ms ago", True)
            else:
                self._answered_in_time(waiting, chunk, now_s, expires_at_s)

    def _answered_in_time(self, waiting: OpenRequest, chunk: Chunk, now_s: float, expires_at_s: float) -> None:
        self.tally.chunks += 1
        self._chunks_here += 1
        self.tally.latency_ms.append(1e3 * (now_s - waiting.asked_at_s))
        self.tally.flags.update(chunk.flags)
        self._hear(
            LinkEvent(
                kind="chunk",
                t_s=now_s,
                seq=chunk.seq,
                chunk=chunk,
                asked_at_s=waiting.asked_at_s,
                expires_at_s=expires_at_s,
                is_first=self._chunks_here == 1,
            )
        )

    def _wrong_model(self, chunk: Chunk) -> str:
        assert self.ready is not None
        ready = self.ready
        said = self._pinned or ModelIdentity(ready.model_version, ready.contract.contract_id, ready.bundle_digest)
        came = ModelIdentity(chunk.model_version, chunk.contract_id, chunk.bundle_digest)
        return f"a chunk of {came}, this episode began with {said}" if came.is_another(said) else ""

    def _take_reject(self, reject: Reject, now_s: float) -> None:
        is_for_session = reject.seq == 0
        if not is_for_session and not self._is_ours(reject):
            self._drop("stale-epoch" if reject.epoch != self.epoch else "foreign")
        elif not is_for_session and reject.seq != self.open_seq:
            self._drop("late" if reject.seq in self._dead_seqs else "duplicate")
        else:
            seq = self.open_seq
            self._open, self._dead, self._answered = None, 0, max(seq, self._answered)
            self._refused(now_s, seq, reject.code.value, reject.reason, reject.retryable, reject.retry_after_ms / 1e3)
            if reject.code in (RefusalCode.STALE_EPOCH, RefusalCode.LEASE):
                self._cut(now_s, f"the service ended the session: {reject.code}")
            elif reject.code is RefusalCode.KILLED:
                self._hear(LinkEvent(kind="told", t_s=now_s, code="KILL", reason=reject.reason))

    def _take_control(self, control: Control, now_s: float) -> None:
        if control.kind == "PING":
            self.say("PONG", seq=control.seq, value=control.value)
        elif not self._is_ours(control) and control.session_id:
            self._drop("foreign")
        elif control.kind == "PONG":
            if control.seq == self._ping_seq:
                self.tally.round_trip_ms.append(1e3 * (now_s - self._pinged_at_s))
        elif control.kind == "LEASE":
            if control.value > 0:
                self._lease_until_s = now_s + control.value
        elif control.kind in ("HOLD", "KILL", "DRAIN", "RESET"):
            self._hear(LinkEvent(kind="told", t_s=now_s, code=control.kind, reason=control.text, value=control.value))

    def _tend_lease(self, now_s: float) -> None:
        if self.ready is None or self._lease_until_s == float("inf"):
            return
        if now_s >= self._lease_until_s:
            self._hear(LinkEvent(kind="lease", t_s=now_s, reason="the session's lease ran out", is_retryable=True))
            self._cut(now_s, "lease")
        elif now_s - self._lease_asked_s >= self.ready.lease_s / 3:
            self._lease_asked_s = now_s
            self.say("LEASE", value=self.ready.lease_s)

    def _late(self, now_s: float) -> None:
        assert self._open is not None
        seq = self._open.seq
        self.tally.late += 1
        self._dead += 1
        self._kill_open()
        reason = "no answer within the deadline"
        self._hear(LinkEvent(kind="late", t_s=now_s, seq=seq, code=RefusalCode.DEADLINE.value, reason=reason, is_retryable=True))
        if self._dead >= self.settings.max_dead:
            self._cut(now_s, f"{self._dead} questions in a row without an answer")

    def _kill_open(self, *, cancel: bool = True) -> None:
        waiting, self._open = self._open, None
        if waiting is None:
            return
        self._dead_seqs.append(waiting.seq)
        if cancel and waiting.is_written:
            self.say("CANCEL", seq=waiting.seq)

    def say(self, kind: str, *, seq: int = 0, value: float = 0.0) -> None:
        """Send a CONTROL of this session."""
        session_id = "" if self.ready is None else self.ready.session_id
        self._controls.append(Control(kind=kind, session_id=session_id, epoch=self.epoch, seq=seq, value=value))

    def _refused(self, now_s: float, seq: int, code: str, reason: str, retryable: bool, after_s: float = 0.0) -> None:
        self.tally.refusals[code] = self.tally.refusals.get(code, 0) + 1
        self._hear(LinkEvent(kind="refused", t_s=now_s, seq=seq, code=code, reason=reason, is_retryable=retryable, value=after_s))

    def _deny(
        self, now_s: float, code: RefusalCode, reason: str, retryable: bool, retry_after_s: float, details: tuple[str, ...] = ()
    ) -> None:
        self.is_denied = code in _FATAL and not retryable
        self._hear(LinkEvent(kind="denied", t_s=now_s, code=code.value, reason=reason, is_retryable=not self.is_denied, details=details))
        self._cut(now_s, f"{code}: {reason}", dial_at_s=now_s + max(retry_after_s, self._backoff_s))

    def _drop(self, why: str) -> None:
        self.tally.dropped[why] = self.tally.dropped.get(why, 0) + 1

    def _cut(self, now_s: float, reason: str, *, dial_at_s: float | None = None) -> None:
        """Give this connection up. The transport closes it; for the cell it is down from this moment."""
        name = reason.partition(":")[0][:40]
        self.tally.cuts[name] = self.tally.cuts.get(name, 0) + 1
        self.wants_cut = True
        self._kill_open(cancel=False)
        self._controls.clear()
        self._state = "down"
        self._plan_dial(now_s)
        if dial_at_s is not None:
            self._next_dial_s = dial_at_s
        self._hear(LinkEvent(kind="down", t_s=now_s, reason=reason, is_retryable=True))

    def _plan_dial(self, now_s: float) -> None:
        self._next_dial_s = now_s + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, self.settings.max_backoff_s)

    def _hear(self, heard: LinkEvent) -> None:
        self._heard.append(heard)
