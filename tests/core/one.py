"""One replica under test: events in, effects out, a clock that stands until it is moved."""

from __future__ import annotations

from typing import TypeVar

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log, encode_configuration
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Message,
    ProbeReply,
    Promise,
    Refusal,
)
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
    Seat,
    Standing,
)

A, B, C, D = (Incarnation(f"{name}@1") for name in "abcd")
FIRST = Ballot(1, A)
MessageT = TypeVar("MessageT")
EffectT = TypeVar("EffectT", bound=Effect)


def seat(name: Incarnation, standing: Standing = Standing.VOTER, promoting: bool = False) -> Seat:
    member_id = name.partition("@")[0]
    return Seat(member_id, "1", f"{member_id}:1", standing, promoting)


def configuration_entry(
    seq: int, ballot: Ballot, *names: Incarnation, learner: Incarnation | None = None
) -> Entry:
    """A CONFIG entry with these voters."""
    seats = [seat(name) for name in names]
    if learner is not None:
        seats.append(seat(learner, Standing.LEARNER, True))
    payload = encode_configuration(Configuration(tuple(sorted(seats)), 0))
    return Entry.make(seq, ballot, EntryKind.CONFIG, 1.0, payload)


def noop(seq: int, ballot: Ballot) -> Entry:
    return Entry.make(seq, ballot, EntryKind.NOOP, 1.0)


class One:
    """A replica ``a`` of the voters a, b, c, whose log holds their configuration.

    ``turn`` returns the effects; its disk is quick unless ``slow``.
    """

    def __init__(
        self,
        *entries: Entry,
        name: Incarnation = A,
        voters: tuple[Incarnation, ...] = (A, B, C),
        promised: Ballot = FIRST,
        limits: Limits | None = None,
        recovering: bool = False,
    ) -> None:
        log = Log()
        for entry in (configuration_entry(1, FIRST, *voters), *entries):
            log.append(entry)
        log.durable_seq = log.last_seq
        self.local = Local(name, limits or Limits(), log, promised, 1, 0, "c1")
        self.local.recovering = recovering
        self.replica = Replica(self.local)
        self.now = 100.0
        self.slow = False
        self.chance = 0.5
        self.replica.start(self.now, self.chance)

    def turn(self, *happened: events.Event) -> list[Effect]:
        """One turn with these events, and the syncs that it asks for."""
        found: list[Effect] = []
        for event in happened:
            found += self.replica.step(event, self.now, self.chance)
        found += self.replica.step(events.EndOfTurn(self.now), self.now, self.chance)
        tickets = [effect.ticket for effect in found if isinstance(effect, effects.Persist)]
        if tickets and not self.slow:
            found += self.turn(events.Persisted(tickets[-1]))
        return found

    def receive(self, source: Incarnation, message: Message) -> list[Effect]:
        return self.turn(events.Received(source, message))

    def tick(self, after: float = 0.0) -> list[Effect]:
        self.now += after
        return self.turn(events.Tick())

    def apply(self) -> list[Effect]:
        """Report everything that it asked for as applied."""
        return self.turn(events.Applied(self.local.apply_asked, self.local.apply_asked))

    def lead(self) -> list[Effect]:
        """Win an election against b's vote, and commit the first own entry with b."""
        self.now = max(self.now, self.replica.election.deadline)
        self.tick()
        candidacy = self.replica.election.candidacy
        assert candidacy is not None
        ballot, last = candidacy.ballot, Position(FIRST, 1)
        self.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, last))
        found = self.receive(B, Promise(ballot, Refusal.NONE, ballot, last))
        assert self.local.leads
        self.receive(B, Accepted(ballot, self.local.log.last_seq, 1, 1, 1))
        assert self.local.role.value == "master"
        self.apply()
        return found

    @property
    def ballot(self) -> Ballot:
        return self.replica.master.ballot

    def accept(
        self,
        ballot: Ballot,
        *entries: Entry,
        previous: Position | None = None,
        commit: int = 0,
        number: int = 1,
    ) -> list[Effect]:
        """An accept of a ballot arrives from its owner; ``number`` is its round."""
        behind = previous or Position(FIRST, 1)
        return self.receive(ballot.owner, Accept(ballot, behind, entries, commit, number))


def sent(found: list[Effect], kind: type[MessageT]) -> list[MessageT]:
    """The messages of a kind among effects."""
    messages = [effect.message for effect in found if isinstance(effect, effects.Send)]
    return [message for message in messages if isinstance(message, kind)]


def of_kind(found: list[Effect], kind: type[EffectT]) -> list[EffectT]:
    return [effect for effect in found if isinstance(effect, kind)]
