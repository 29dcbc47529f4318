"""What is kept of a simulated run, so that somebody can look at it afterwards.

A ``Recording`` is plain data: it goes to JSON and back unchanged, and ``report.render`` makes a
page of it. A ``Recorder`` is filled while the run goes on. It is called for every simulated event,
so it does little then: it appends, it keeps a text as the function that would make it until the
recording is asked for, and of every kind of thing it keeps the latest only. What had to go is
counted, and the recording says from when on it is complete.

Nothing here knows members, networks or disks: whoever simulates says what happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import structs

from clusterconsensus.simulation.telling.latest import Latest, Text

Axis = Literal["seconds", "steps"]
FindingKind = Literal["safety", "liveness", "crash"]
Fate = Literal["delivered", "lost", "cut", "garbled", "stale", "under way"]
MarkKind = Literal[
    "start",
    "crash",
    "pause",
    "resume",
    "promise",
    "candidate",
    "master",
    "lost_master",
    "persist",
    "durable",
    "commit",
    "apply",
    "cut_log",
    "adopt",
    "config",
    "disk",
    "halt",
    "fault",
    "violation",
    "note",
]
SpanKind = Literal["down", "paused", "frozen", "master", "candidate", "slow_disk", "hung_disk"]


class Finding(msgspec.Struct, kw_only=True):
    """What is wrong with the run. ``rule`` is one of the protocol page: ``I-4``, ``X4``."""

    rule: str
    kind: FindingKind
    text: str
    at: float
    members: list[str] = []


class Sent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A message. ``arrived_at`` is None for one that never got to its target."""

    id: int
    kind: str
    """In lower case: ``accept``, ``probereply``. An ``accept`` without entries is ``heartbeat``,
    and the answer to one is ``heartbeat_reply``."""
    source: str
    target: str
    sent_at: float
    arrived_at: float | None = None
    fate: Fate = "delivered"
    text: str = ""
    repeated: bool = False
    """Whether it is a copy that the network made."""


class Mark(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that happened at one member in no time. The text of ``commit`` and ``apply`` begins
    with the sequence."""

    at: float
    member: str
    kind: MarkKind
    text: str = ""


class Span(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A state that a member was in for a while; ``ends`` is None if the run ended first."""

    member: str
    kind: SpanKind
    begins: float
    ends: float | None = None
    text: str = ""
    """Of a ``master`` or ``candidate``: the ballot."""


class Deed(msgspec.Struct, kw_only=True):
    """Something that was done to the cluster from outside."""

    at: float
    text: str


class Cut(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A link that carried nothing in this direction; ``ends`` is None if the run ended first."""

    source: str
    target: str
    begins: float
    ends: float | None = None


class Shown(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One call of a client; ``returned`` is None for a call without an answer."""

    number: int
    client: str
    member: str
    call: str
    invoked: float
    returned: float | None = None
    outcome: str = "waits"
    """A word: ``ok``, ``not applied``, ``unknown``, ``waits``."""
    result: str = ""
    wrong: bool = False
    """Whether this call is among those that show the violation."""


class Recording(msgspec.Struct, kw_only=True):
    """All that is known of one run, in the order in which it happened."""

    title: str
    command: str
    """What replays the run, to be typed into a shell."""
    seed: int | None
    faults: list[str]
    """The faults that the run had in its plan."""
    members: list[str]
    """In the order of their lines, from the top."""
    clients: list[str]
    begins: float
    ends: float
    axis: Axis = "seconds"
    violation: Finding | None = None
    messages: list[Sent] = []
    marks: list[Mark] = []
    spans: list[Span] = []
    world: list[Deed] = []
    cuts: list[Cut] = []
    operations: list[Shown] = []
    log: list[str] = []
    dropped: dict[str, int] = {}
    """How many earlier ones the recorder forgot, by the name of the field."""
    complete_from: float | None = None
    """The time of the latest forgotten thing, None if nothing was forgotten."""


M = TypeVar("M", Sent, Mark)


class Recorder:
    """Keeps what happens. All times are virtual ones, in seconds or steps, and never go back.

    Arguments:
        title: What was run, in a few words.
        command: What replays it.
        seed: Of the run, if it has one.
        faults: The faults of its plan.
        members: Their ids, in the order of their lines; others are added as they appear.
        axis: Whether times are seconds or numbered steps.
        max_messages: How many messages are kept, the latest ones.
        max_others: How many of every other kind of thing are kept.
    """

    def __init__(
        self,
        *,
        title: str = "",
        command: str = "",
        seed: int | None = None,
        faults: Sequence[str] = (),
        members: Sequence[str] = (),
        axis: Axis = "seconds",
        max_messages: int = 20_000,
        max_others: int = 20_000,
    ) -> None:
        if max_messages < 1 or max_others < 1:
            raise ValueError("a recorder keeps at least one of everything")
        self.title = title
        self.command = command
        self.seed = seed
        self.faults = list(faults)
        self.axis: Axis = axis
        self.violation: Finding | None = None
        # A dict is an ordered set here.
        self._members = dict.fromkeys(members)
        self._clients: dict[str, None] = {}
        self._messages: Latest[Sent] = Latest(max_messages)
        self._marks: Latest[Mark] = Latest(max_others)
        self._spans: Latest[Span] = Latest(max_others)
        self._world: Latest[Deed] = Latest(max_others)
        self._cuts: Latest[Cut] = Latest(max_others)
        self._operations: Latest[Shown] = Latest(max_others)
        self._log: Latest[str] = Latest(max_others)
        self._open_spans: dict[tuple[str, SpanKind], Span] = {}
        self._open_cuts: dict[tuple[str, str], Cut] = {}
        self._begins: float | None = None
        self._latest = 0.0

    def member(self, member_id: str) -> None:
        """Give a member its line, below those that are there."""
        self._members.setdefault(member_id)

    def sent(
        self,
        at: float,
        kind: str,
        source: str,
        target: str,
        text: Text = "",
        *,
        repeated: bool = False,
    ) -> int:
        """A message left its source. Returns the number to give to ``arrived``."""
        self._note(at)
        number = self._messages.next
        message = Sent(
            id=number,
            kind=kind,
            source=source,
            target=target,
            sent_at=at,
            fate="under way",
            repeated=repeated,
        )
        self._messages.append(at, message, text)
        return number

    def arrived(self, number: int, at: float, fate: Fate = "delivered") -> None:
        """What became of a message, and when; one that is lost or cut has no time of arrival."""
        self._note(at)
        message = self._messages.get(number)
        if message is not None:
            message.fate = fate
            if fate not in ("lost", "cut", "under way"):
                message.arrived_at = at

    def mark(self, at: float, member: str, kind: MarkKind, text: Text = "") -> None:
        """Something happened at a member."""
        self._note(at)
        self._marks.append(at, Mark(at=at, member=member, kind=kind), text)

    def span_begins(self, at: float, member: str, kind: SpanKind, text: str = "") -> None:
        """A member is in a state from now on. It ends one of the same kind, if there is one."""
        self.span_ends(at, member, kind)
        span = Span(member=member, kind=kind, begins=at, text=text)
        self._open_spans[member, kind] = span
        self._spans.append(at, span)

    def span_ends(self, at: float, member: str, kind: SpanKind) -> None:
        """It no longer is; nothing happens if it was not."""
        self._note(at)
        span = self._open_spans.pop((member, kind), None)
        if span is not None:
            span.ends = at

    def cut(self, at: float, source: str, target: str) -> None:
        """A link carries nothing in this direction from now on."""
        self._note(at)
        if (source, target) not in self._open_cuts:
            cut = Cut(source=source, target=target, begins=at)
            self._open_cuts[source, target] = cut
            self._cuts.append(at, cut)

    def healed(self, at: float, source: str, target: str) -> None:
        """A link works again in this direction; nothing happens if it was not cut."""
        self._note(at)
        cut = self._open_cuts.pop((source, target), None)
        if cut is not None:
            cut.ends = at

    def did(self, at: float, text: str) -> None:
        """Something was done to the cluster: a cut, a heal, a crash."""
        self._note(at)
        self._world.append(at, Deed(at=at, text=text))

    def invoked(self, at: float, client: str, member: str, call: str) -> int:
        """A client called. Returns the number to give to ``returned``."""
        self._note(at)
        self._clients.setdefault(client)
        number = self._operations.next
        shown = Shown(number=number, client=client, member=member, call=call, invoked=at)
        self._operations.append(at, shown)
        return number

    def returned(self, number: int, at: float, outcome: str, result: str = "") -> None:
        """A client has its answer. ``outcome`` is one word, see ``Shown``."""
        self._note(at)
        shown = self._operations.get(number)
        if shown is not None:
            shown.returned, shown.outcome, shown.result = at, outcome, result

    def is_wrong(self, number: int) -> None:
        """This call shows the violation."""
        shown = self._operations.get(number)
        if shown is not None:
            shown.wrong = True

    def say(self, line: str) -> None:
        """A line of the log of the run."""
        self._log.append(self._latest, line)

    def violated(
        self, at: float, rule: str, kind: FindingKind, text: str, members: Sequence[str] = ()
    ) -> None:
        """A rule does not hold. The first finding stays: what follows follows from it."""
        self._note(at)
        if self.violation is None:
            self.violation = Finding(rule=rule, kind=kind, text=text, at=at, members=list(members))

    def recording(self, ends: float | None = None) -> Recording:
        """What is kept so far; ``ends`` is now, by default the time of the last event.

        What is recorded afterwards does not change it.
        """
        messages = _with_texts(self._messages)
        marks = _with_texts(self._marks)
        spans = [structs.replace(span) for span in self._spans.kept()]
        members = dict(self._members)
        for message in messages:
            members.setdefault(message.source)
            members.setdefault(message.target)
        for mark in marks:
            members.setdefault(mark.member)
        for span in spans:
            members.setdefault(span.member)
        recording = Recording(
            title=self.title,
            command=self.command,
            seed=self.seed,
            faults=list(self.faults),
            members=list(members),
            clients=list(self._clients),
            begins=self._latest if self._begins is None else self._begins,
            ends=self._latest if ends is None else ends,
            axis=self.axis,
            violation=self.violation,
            messages=messages,
            marks=marks,
            spans=spans,
            world=self._world.kept(),
            cuts=[structs.replace(cut) for cut in self._cuts.kept()],
            operations=[structs.replace(shown) for shown in self._operations.kept()],
            log=self._log.kept(),
        )
        limited: dict[str, Latest[Any]] = {
            "messages": self._messages,
            "marks": self._marks,
            "spans": self._spans,
            "world": self._world,
            "cuts": self._cuts,
            "operations": self._operations,
            "log": self._log,
        }
        forgotten = {name: latest for name, latest in limited.items() if latest.dropped}
        if forgotten:
            recording.dropped = {name: latest.dropped for name, latest in forgotten.items()}
            recording.complete_from = max(latest.dropped_until for latest in forgotten.values())
        return recording

    def _note(self, at: float) -> None:
        if self._begins is None:
            self._begins = at
        self._latest = at


def _with_texts(latest: Latest[M]) -> list[M]:
    latest.trim()
    return [
        structs.replace(item, text=text if isinstance(text, str) else text())
        for _, item, text in latest.items
    ]
