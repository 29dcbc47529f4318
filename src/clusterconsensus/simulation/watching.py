"""What the members of a simulated cluster do: every effect of every turn comes by here.

Each is handed to the ghost, which judges it, and to the recording, if there is one; rare paths are
counted, and the fault injector is told of the moments at which it may want to strike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clusterconsensus.consensus import effects, events, messages
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.types import ZERO, Ballot, EntryKind, Incarnation, Role
from clusterconsensus.simulation.judges.invariants import rule_of
from clusterconsensus.simulation.judges.snapshots import read_whole
from clusterconsensus.simulation.lives import DIRECTORY, Life
from clusterconsensus.simulation.telling.recording import Recorder, SpanKind

if TYPE_CHECKING:
    from clusterconsensus.simulation.cluster import Cluster


class Watch:
    """Watches the members of one cluster.

    Arguments:
        cluster: Whose.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.masterships: list[tuple[float, str]] = []
        """When each mastership began to serve, and whose it is."""
        self._bases: dict[Incarnation, int] = {}
        self._snapshots: dict[Incarnation, int] = {}
        self._pieces: dict[tuple[Incarnation, str], tuple[Ballot, float]] = {}
        self._transfers: dict[Ballot, None] = {}

    def on_effects(self, life: Life, found: Sequence[Effect]) -> None:
        """A member's turn had these effects; they are about to be performed."""
        cluster, ghost = self.cluster, self.cluster.ghost
        if cluster.recorder is not None:
            self._mark(cluster.recorder, life, found)
        for effect in found:
            if isinstance(effect, effects.Send):
                ghost.on_send(life, effect.message)
                self._on_message(life, effect)
            elif isinstance(effect, effects.Persist):
                self._on_persist(life, effect)
                ghost.on_persist(life, effect)
            elif isinstance(effect, effects.RoleChanged):
                self._on_role(life, effect)
            elif isinstance(effect, effects.Install):
                cluster.sometimes["snapshot installed"] += 1
                cluster.tell(life.machine.id, "note", f"installs the snapshot {effect.snapshot}")
                if cluster.on_install is not None:
                    cluster.on_install(life.machine)
            elif isinstance(effect, effects.Compact):
                if effect.seq > self._bases.get(life.name, 0):
                    self._bases[life.name] = effect.seq
                    cluster.sometimes["log compacted"] += 1
            elif isinstance(effect, effects.Recovered):
                cluster.sometimes["recovering left"] += not life.machine.in_doubt
                cluster.tell(life.machine.id, "note", f"is whole again up to {effect.seq}")
            elif isinstance(effect, effects.Load):
                cluster.sometimes["entries read back from the journal"] += 1
            elif isinstance(effect, effects.Diverged):
                ghost.fail("I-13", f"{life} was told that it has diverged")
            elif isinstance(effect, effects.Halt):
                rule, text = rule_of(effect.reason)
                ghost.fail("I-13" if effect.diverged else rule, f"{life} halts: {text}")

    def _mark(self, recorder: Recorder, life: Life, found: Sequence[Effect]) -> None:
        """Write down for people what a turn did to the log."""
        now, machine_id = self.cluster.world.now, life.machine.id
        for effect in found:
            if isinstance(effect, effects.Apply):
                recorder.mark(now, machine_id, "commit", f"{effect.seq} is known to be chosen")
            elif isinstance(effect, effects.ConfigurationChanged):
                state = "chosen" if effect.committed else "in force"
                seats = life.local.log.configuration.seats
                names = " ".join(f"{seat.id} ({seat.standing})" for seat in seats)
                recorder.mark(now, machine_id, "config", f"members {names}, {state}")
            elif isinstance(effect, effects.Persist):
                if effect.promised is not None:
                    recorder.mark(now, machine_id, "promise", str(effect.promised))
                if effect.truncate_from is not None:
                    text = f"the log is cut off from {effect.truncate_from} on"
                    recorder.mark(now, machine_id, "cut_log", text)

    def _on_message(self, life: Life, effect: effects.Send) -> None:
        sometimes, message = self.cluster.sometimes, effect.message
        if isinstance(message, messages.Accept):
            if message.entries and self.cluster.on_accepts is not None:
                self.cluster.on_accepts(life.machine)
        elif isinstance(message, messages.Accepted):
            if not life.belongs:
                self._check_identity(life)
        elif isinstance(message, messages.Reject):
            sometimes[f"accept refused: {message.refusal.name.lower()}"] += 1
        elif isinstance(message, messages.Promise):
            sometimes["promise with entries"] += bool(message.suffix)
        elif isinstance(message, messages.PromisePull):
            sometimes["promise pulled"] += 1
        elif isinstance(message, messages.Prepare):
            if message.transfer_from != ZERO:
                self._transfers[message.ballot] = None
        elif isinstance(message, messages.StartParticipation):
            self._on_piece(effect.to[0], message)

    def _on_piece(self, to: Incarnation, message: messages.StartParticipation) -> None:
        """A piece of a snapshot leaves: does it go on with what somebody else, or long silence,
        had broken off?"""
        key = (to, str(message.snapshot))
        ballot, at = self._pieces.get(key, (message.ballot, self.cluster.world.now))
        late = self.cluster.world.now - at > self.cluster.settings.election_timeout_seconds
        if message.offset and (ballot != message.ballot or late):
            self.cluster.sometimes["transfer resumed after a cut"] += 1
        self._pieces[key] = (message.ballot, self.cluster.world.now)

    def on_snapshot(self, life: Life, event: events.SnapshotTaken | events.SnapshotStored) -> None:
        """A snapshot is durable at a member."""
        taken = isinstance(event, events.SnapshotTaken)
        if event.snapshot.seq <= self._snapshots.get(life.name, 0):
            return  # it is told of again
        self._snapshots[life.name] = event.snapshot.seq
        self.cluster.sometimes["snapshot taken" if taken else "snapshot received"] += 1
        name = f"snapshot {event.snapshot}"
        self.cluster.tell(life.machine.id, "note", f"{'took' if taken else 'received'} the {name}")
        machine = life.machine
        path = f"{DIRECTORY}/snapshot-{event.snapshot.seq:020}.snap"
        content = machine.disk.durable_names.get(path)
        found = None if content is None else read_whole(path, content)
        if found is None and machine.was_damaged:
            return  # by a fault, before the process came to tell of it
        if found is None:
            self.cluster.ghost.fail("D7", f"the {name} of {life} is not whole on its disk")
        self.cluster.ghost.on_label(machine.id, event.snapshot.seq, found.applied)
        self.cluster.ghost.on_content(machine.id, found.applied, found.state)

    def _check_identity(self, life: Life) -> None:
        """Before its first acknowledgement a member's disk says whose it is (D9)."""
        life.belongs = True
        identity = bytes(life.machine.disk.content(f"{DIRECTORY}/identity").durable)
        if life.local.cluster_id.encode() not in identity:
            self.cluster.ghost.fail("D9", f"{life} acknowledges, and its identity is not durable")

    def _on_persist(self, life: Life, batch: effects.Persist) -> None:
        if batch.truncate_from is not None:
            self.cluster.sometimes["log cut off"] += 1
        if not batch.entries:
            return
        local = life.local
        changes_members = any(entry.kind == EntryKind.CONFIG for entry in batch.entries)
        # A candidate may adopt and win in one turn; what a master appends has its own ballot.
        own = batch.entries[0].ballot == life.running.master.ballot
        if local.role is Role.CANDIDATE or (local.leads and not own):
            self.cluster.sometimes["adoption"] += 1
            self.cluster.sometimes["adoption of a configuration"] += changes_members
        elif changes_members and local.leads and self.cluster.on_configuration is not None:
            self.cluster.on_configuration(life.machine)

    def _on_role(self, life: Life, effect: effects.RoleChanged) -> None:
        self.cluster.sometimes[f"role {effect.role}"] += 1
        now = self.cluster.world.now
        self.cluster.trace.note(now, f"{life} {effect.role} {effect.ballot} {effect.reason}")
        if effect.role is Role.MASTER:
            self.cluster.sometimes["mastership"] += 1
            self.masterships.append((now, life.machine.id))
            if effect.ballot in self._transfers:
                self.cluster.sometimes["handed over"] += 1
        if effect.role is Role.REMOVED and life.name not in self.cluster.ghost.removed:
            self.cluster.ghost.fail("M8", f"{life} believes that it was removed, and it was not")
        if effect.reason.startswith("no majority answered within"):
            self.cluster.sometimes["stepped down without a majority"] += 1
        elif effect.reason.startswith("the disk finished no sync"):
            self.cluster.sometimes["stepped down for a hung disk"] += 1
        recorder = self.cluster.recorder
        if recorder is None:
            return
        machine_id = life.machine.id
        leads = effect.role in (Role.MASTER, Role.PENDING_MASTER)
        recorder.say(
            f"{now:11.6f}  {machine_id}  {effect.role} in {effect.ballot}: {effect.reason}"
        )
        if effect.role is Role.MASTER:
            recorder.mark(now, machine_id, "master", f"{effect.ballot}: {effect.reason}")
        elif effect.role is Role.CANDIDATE:
            recorder.mark(now, machine_id, "candidate", f"{effect.ballot}: {effect.reason}")
        candidate = effect.role is Role.CANDIDATE
        spans: tuple[tuple[SpanKind, bool], ...] = (("master", leads), ("candidate", candidate))
        for kind, holds in spans:
            if holds:
                recorder.span_begins(now, machine_id, kind, str(effect.ballot))
            else:
                recorder.span_ends(now, machine_id, kind)
