"""Writes down what bare cores do, so that a story can be drawn like a run of a whole cluster.

Bare cores have no time that passes by itself: whatever happens is a step of its own, and the steps
are what the recording has instead of seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from clusterconsensus.consensus import effects
from clusterconsensus.consensus.messages import Accept, Message
from clusterconsensus.consensus.types import Role, member_id_of
from clusterconsensus.simulation.cores.describe import describe
from clusterconsensus.simulation.telling.recording import Fate, MarkKind, Recorder, SpanKind

if TYPE_CHECKING:
    from clusterconsensus.simulation.cores.world import Packet

_decode = msgspec.msgpack.Decoder(Message).decode

UNNUMBERED = -1


class Notes:
    """What a cluster of bare cores tells a recorder.

    Arguments:
        recorder: Its times are steps.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._step = 0
        self._arrived: set[int] = set()
        self._commits: dict[str, int] = {}

    def step(self) -> float:
        """One more thing happens. Returns its number."""
        self._step += 1
        return float(self._step)

    def sent(self, source: str, target: str, packet: Packet, *, again: bool = False) -> Packet:
        """A packet leaves. Returns it with its number."""
        message = _decode(packet.data)
        kind = packet.kind
        if isinstance(message, Accept) and not message.entries:
            kind = "heartbeat"
        number = self.recorder.sent(
            self.step(), kind, source, target, describe(message), repeated=again
        )
        return replace(packet, number=number)

    def ended(self, target: str, packet: Packet, fate: Fate) -> None:
        """What became of a packet. One that arrives again is a copy, or was forged."""
        if packet.number in self._arrived or packet.number == UNNUMBERED:
            again = packet.number != UNNUMBERED
            packet = self.sent(member_id_of(packet.source), target, packet, again=again)
        self._arrived.add(packet.number)
        self.recorder.arrived(packet.number, self.step(), fate)

    def mark(self, member: str, kind: MarkKind, text: str = "") -> None:
        """Something happened at a member."""
        self.recorder.mark(self.step(), member, kind, text)

    def started(self, member: str) -> None:
        """A member runs."""
        self.recorder.member(member)
        self.recorder.span_ends(self.step(), member, "down")

    def crashed(self, member: str) -> None:
        """A member runs no longer."""
        self.mark(member, "crash")
        kinds: tuple[SpanKind, ...] = ("master", "candidate")
        for kind in kinds:
            self.recorder.span_ends(float(self._step), member, kind)
        self.recorder.span_begins(float(self._step), member, "down")

    def committed(self, member: str, commit: int) -> None:
        """A member knows how much is chosen."""
        if commit > self._commits.get(member, 0):
            self._commits[member] = commit
            self.mark(member, "commit", str(commit))

    def role(self, member: str, effect: effects.RoleChanged) -> None:
        """A member is something else from now on."""
        now = self.step()
        spans: tuple[tuple[SpanKind, bool], ...] = (
            ("master", effect.role in (Role.MASTER, Role.PENDING_MASTER)),
            ("candidate", effect.role is Role.CANDIDATE),
        )
        for kind, holds in spans:
            if holds:
                self.recorder.span_begins(now, member, kind, str(effect.ballot))
            else:
                self.recorder.span_ends(now, member, kind)
        if effect.role is Role.MASTER:
            self.recorder.mark(now, member, "master", f"{effect.ballot}: {effect.reason}")
        elif effect.role is Role.CANDIDATE:
            self.recorder.mark(now, member, "candidate", f"{effect.ballot}: {effect.reason}")

    def cut(self, source: str, target: str) -> None:
        """A link carries nothing in this direction from now on."""
        self.recorder.cut(self.step(), source, target)

    def healed(self, source: str, target: str) -> None:
        """A link works again in this direction."""
        self.recorder.healed(self.step(), source, target)
