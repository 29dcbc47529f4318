"""Messages and entries in one line each, for stories and failing schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Action,
    AddMember,
    ChangeMember,
    Group,
    Identify,
    Identity,
    JoinAsk,
    MembershipReply,
    Message,
    OpenSession,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Quarantine,
    ReadAsk,
    ReadTell,
    RecoverAsk,
    RecoverTell,
    Refusal,
    Regressed,
    Reject,
    SessionOpened,
    SnapshotAck,
    StartParticipation,
    Submit,
    SubmitReply,
    TransferMaster,
)
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    decode_groups,
    decode_requests,
    decode_session_order,
)
from clusterconsensus.consensus.types import (
    ZERO,
    Configuration,
    Entry,
    EntryKind,
    member_id_of,
)
from clusterconsensus.simulation.cores.machine import Done, Opened

decode_configuration = msgspec.msgpack.Decoder(Configuration).decode


Show = Callable[[bytes], str]
"""Turns an encoded change or outcome into text."""


def plain(data: bytes) -> str:
    """For changes and outcomes that are text themselves."""
    return data.decode("utf-8", "backslashreplace")


def describe_entry(entry: Entry, told: Sequence[Done | Opened] = (), show: Show = plain) -> str:
    """``5@2:a x=1``; with what came of it where it was applied."""
    head = f"{entry.seq}@{entry.ballot}"
    if entry.kind == EntryKind.NOOP:
        return f"{head} noop"
    if entry.kind == EntryKind.CONFIG:
        return f"{head} members {describe_seats(decode_configuration(entry.payload))}"
    if entry.kind == EntryKind.SESSION:
        order = decode_session_order(entry.payload)
        if isinstance(order, CloseSessions):
            return f"{head} close sessions " + " ".join(str(number) for number, _ in order.idle)
        return f"{head} session of {member_id_of(order.owner)}"
    results = [outcome for item in told if isinstance(item, Done) for outcome in item.outcomes]
    texts = [text for group in decode_groups(entry.payload) for text in _texts(group, show)]
    if results:
        shown = (
            f"{text} -> {'no session' if result is None else show(result)}"
            for text, result in zip(texts, results, strict=True)
        )
        return f"{head} " + ", ".join(shown)
    return f"{head} " + ", ".join(texts)


def describe_seats(configuration: Configuration) -> str:
    """``a(voter) b(learner)``; with the priority where it is not the usual one."""
    texts: list[str] = []
    for seat in configuration.seats:
        priority = "" if seat.priority == 1 else f", priority {seat.priority}"
        texts.append(f"{seat.id}({seat.standing}{priority})")
    return " ".join(texts)


def _texts(group: Group, show: Show) -> list[str]:
    return [
        show(request) if isinstance(request, bytes) else " & ".join(map(show, request))
        for request in decode_requests(group.body)
    ]


def _entries(entries: Sequence[Entry], show: Show) -> str:
    return "[" + ", ".join(describe_entry(entry, (), show) for entry in entries) + "]"


def _verdict(refusal: Refusal) -> str:
    return "yes" if refusal is Refusal.NONE else refusal.name


def describe(message: Message, show: Show = plain) -> str:
    """One line that names the message and what matters in it."""
    match message:
        case Probe():
            return f"Probe {message.ballot}"
        case ProbeReply():
            verdict = _verdict(message.refusal)
            return f"ProbeReply {message.ballot} {verdict}, promised {message.promised}"
        case Prepare():
            asked = message.transfer_from > ZERO
            handed = f" handed over by {message.transfer_from}" if asked else ""
            return f"Prepare {message.ballot} base {message.base} last {message.last}{handed}"
        case Promise():
            text = f"Promise {message.ballot} {_verdict(message.refusal)}, last {message.last}"
            if message.refusal is not Refusal.NONE:
                text += f", promised {message.promised}"
            if message.suffix:
                text += f" {_entries(message.suffix, show)}"
            return text + (" more" if message.more else "")
        case PromisePull():
            return f"PromisePull {message.ballot} from {message.first}"
        case PromisePart():
            more = " more" if message.more else ""
            return f"PromisePart {message.ballot} {_entries(message.entries, show)}{more}"
        case Accept():
            return (
                f"Accept {message.ballot} round {message.round} behind {message.previous} "
                f"{_entries(message.entries, show)} commit {message.commit}"
            )
        case Accepted():
            return (
                f"Accepted {message.ballot} round {message.round} match {message.match} "
                f"applied {message.applied}{' recovering' if message.recovering else ''}"
            )
        case Reject():
            return (
                f"Reject {message.ballot} {message.refusal.name}, promised {message.promised}, "
                f"behind {message.previous_seq} hint {message.hint}"
            )
        case _:
            return _describe_request(message, show)


def _describe_request(message: Message, show: Show) -> str:
    match message:
        case Submit():
            return f"Submit {', '.join(_texts(message.group, show))}"
        case SubmitReply():
            outcomes = ", ".join(
                "no session" if outcome is None else show(outcome) for outcome in message.outcomes
            )
            return f"SubmitReply {_verdict(message.refusal)} {outcomes}".rstrip()
        case OpenSession():
            return "OpenSession"
        case SessionOpened():
            return f"SessionOpened {message.session}"
        case ReadAsk():
            return "ReadAsk by lease" if message.lease else "ReadAsk"
        case ReadTell():
            return f"ReadTell {message.seq}" if message.granted else "ReadTell refused"
        case AddMember():
            return f"AddMember {message.id}"
        case ChangeMember():
            return f"ChangeMember {describe_change(message)}"
        case JoinAsk():
            return f"JoinAsk {message.id}"
        case MembershipReply():
            return f"MembershipReply {message.refusal or 'ok'}"
        case Identify():
            return "Identify"
        case Identity():
            return "Identity"
        case Quarantine():
            return f"Quarantine at {message.seq}"
        case Regressed():
            return f"Regressed {message.ballot} at {message.position}"
        case _:
            return _describe_care(message)


def describe_change(message: ChangeMember) -> str:
    """What is asked for, as in ``remove d``."""
    text = f"{Action(message.action).name.lower().replace('_', ' ')} {message.id}".rstrip()
    if message.action is Action.PRIORITY:
        text += f" {message.priority}"
    return text + (" by force" if message.force else "")


def _describe_care(message: Message) -> str:
    match message:
        case StartParticipation():
            end = message.offset + len(message.chunk)
            of = f"{message.snapshot.position} bytes {message.offset} to {end}"
            return f"StartParticipation {message.ballot} snapshot {of}"
        case SnapshotAck():
            return (
                f"SnapshotAck {message.ballot} snapshot {message.snapshot.position} wants "
                f"{message.next_offset}, commit {message.installed}"
            )
        case RecoverAsk():
            return "RecoverAsk"
        case RecoverTell():
            return f"RecoverTell {message.ballot} up to {message.last_seq}"
        case TransferMaster():
            return f"TransferMaster {message.ballot} up to {message.last_seq}"
        case _:
            raise AssertionError(f"unknown message {message!r}")
