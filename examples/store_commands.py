"""The commands of ``store.py``: one line in, one line out.

An error that is expected is an answer: ``error``, its code, and its message. ``unknown`` means that
a change may have happened; ``retry`` asks again and never makes it happen twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import signature
from typing import Any, Literal

import msgspec
from store_state import Store

from clusterconsensus import (
    ConsensusError,
    Member,
    OutcomeUnknownError,
    Participant,
    ParticipantEvent,
    Seat,
    Standing,
    Status,
)

USAGE = {
    "set": "set KEY VALUE",
    "delete": "delete KEY",
    "retry": "retry",
    "get": "get KEY [linearizable|lease|local]",
    "status": "status [FIELD ...]",
    "members": "members",
    "add": "add ID ADDRESS [learner]",
    "remove": "remove ID [force]",
    "replace": "replace ID ADDRESS [force]",
    "move": "move ID ADDRESS",
    "promote": "promote ID",
    "demote": "demote ID [force]",
    "priority": "priority ID N",
    "transfer": "transfer [ID]",
    "snapshot": "snapshot",
    "events": "events on|off",
    "quit": "quit",
}

STATUS = (
    "role",
    "master",
    "master_seconds",
    "ballot",
    "commit_sequence",
    "applied_sequence",
    "last_sequence",
    "first_sequence",
    "snapshot_sequence",
    "feature_level",
    "recovering",
    "disk_full",
    "diverged",
    "damage",
)
"""What ``status`` shows without being told what; the others by name, or ``status all``."""


class UsageError(Exception):
    """A command is not understood; says how it is written."""


class Commands:
    """Obeys the commands that a member is given.

    Arguments:
        participant: The member.
        say: Prints one line.
    """

    def __init__(self, participant: Participant[Store], say: Callable[[str], None]) -> None:
        self._participant = participant
        self._say = say
        self._unknown: OutcomeUnknownError | None = None
        self._telling: asyncio.Task[None] | None = None

    async def obey(self, line: str) -> bool:
        """Obey one line and say the answer; returns whether to go on."""
        name, *arguments = line.split() or [""]
        if name == "quit":
            return False
        if not name:
            return True
        try:
            method: Callable[..., Awaitable[str]] | None = getattr(self, f"_{name}", None)
            if name not in USAGE or method is None:
                raise UsageError(f"one of {', '.join(USAGE)}; not {name!r}")
            try:
                signature(method).bind(*arguments)
            except TypeError:
                raise UsageError(USAGE[name]) from None
            self._say(await method(*arguments))
        except UsageError as error:
            self._say(f"error usage: {error}")
        except ConsensusError as error:
            if isinstance(error, OutcomeUnknownError):
                self._unknown = error
            self._say(f"error {error.code}: {error}")
        return True

    def close(self) -> None:
        """Tell of no more events."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    # -- the state

    async def _set(self, key: str, *value: str) -> str:
        if not value:
            raise UsageError(USAGE["set"])
        return _at(await self._participant.submit(["set", key, " ".join(value)]))

    async def _delete(self, key: str) -> str:
        return _at(await self._participant.submit(["delete", key]))

    async def _retry(self) -> str:
        unknown = self._unknown
        if unknown is None:
            raise UsageError("retry, after a change whose outcome is unknown")
        answer = _at(await self._participant.retry(unknown))
        self._unknown = None
        return answer

    async def _get(
        self, key: str, consistency: Literal["linearizable", "lease", "local"] = "linearizable"
    ) -> str:
        def query(store: Store) -> str | None:
            return store.values.get(key)

        value = await self._participant.read(query, consistency=consistency)
        return f"{key} is not set" if value is None else f"{key} = {value}"

    # -- the cluster

    async def _members(self) -> str:
        status = self._participant.status()
        committed = "" if status.configuration_committed else ", not committed yet"
        seats = ", ".join(_seat(seat, status) for seat in status.members)
        return f"{seats or 'none'} (since {status.configuration_sequence}{committed})"

    async def _add(self, member_id: str, address: str, standing: str = "voter") -> str:
        if standing not in ("voter", "learner"):
            raise UsageError(USAGE["add"])
        learner = standing == "learner"
        await self._participant.add_participant(Member(member_id, address), learner=learner)
        return f"added {member_id}"

    async def _remove(self, member_id: str, force: str = "") -> str:
        await self._participant.remove_participant(member_id, force=_forced("remove", force))
        return f"removed {member_id}"

    async def _replace(self, member_id: str, address: str, force: str = "") -> str:
        member = Member(member_id, address)
        await self._participant.replace_participant(member, force=_forced("replace", force))
        return f"replaced {member_id}"

    async def _move(self, member_id: str, address: str) -> str:
        await self._participant.move_participant(member_id, address)
        return f"moved {member_id}"

    async def _promote(self, member_id: str) -> str:
        await self._participant.promote_participant(member_id)
        return f"promoted {member_id}"

    async def _demote(self, member_id: str, force: str = "") -> str:
        await self._participant.demote_participant(member_id, force=_forced("demote", force))
        return f"demoted {member_id}"

    async def _priority(self, member_id: str, priority: str) -> str:
        if not priority.isdecimal():
            raise UsageError(USAGE["priority"])
        await self._participant.set_priority(member_id, int(priority))
        return f"priority of {member_id} is {priority}"

    async def _transfer(self, member_id: str | None = None) -> str:
        await self._participant.transfer_master(member_id)
        master = self._participant.current_master
        return f"{master.id if master else 'nobody'} leads"

    # -- this member

    async def _status(self, *names: str) -> str:
        status = self._participant.status()
        known = status.__struct_fields__
        if names == ("all",):
            names = known
        for name in names:
            if name not in known:
                raise UsageError(f"status [FIELD ...], with some of {', '.join(known)}")
        return " ".join(f"{name}={_value(getattr(status, name))}" for name in names or STATUS)

    async def _snapshot(self) -> str:
        taken = await self._participant.snapshot()
        return f"snapshot up to {taken.sequence}, {taken.size_bytes} bytes: {taken.path}"

    async def _events(self, choice: str) -> str:
        if choice not in ("on", "off"):
            raise UsageError(USAGE["events"])
        self.close()
        if choice == "on":
            self._telling = asyncio.create_task(self._tell(self._participant.events()))
        return "telling events" if choice == "on" else "telling no events"

    async def _tell(self, events: AsyncIterator[ParticipantEvent]) -> None:
        async for event in events:
            self._say(f"event {_event(event)}")


def _at(sequence: int) -> str:
    return f"done at {sequence}"


def _forced(command: str, word: str) -> bool:
    if word not in ("", "force"):
        raise UsageError(USAGE[command])
    return word == "force"


def _seat(seat: Seat, status: Status) -> str:
    words = [str(seat.member), seat.standing.value]
    if seat.promoting:
        words.append("to become a voter")
    if seat.priority != 1:
        words.append(f"priority {seat.priority}")
    if status.master is not None and status.master.id == seat.id:
        words.append("master")
    return " ".join(words)


def _value(value: Any) -> str:
    """One word for each field, so that a line can be taken apart again."""
    if isinstance(value, Member):
        return value.id
    if value is None or value == ():
        return "none"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, tuple) and not hasattr(value, "__struct_fields__"):
        return msgspec.json.encode(value).decode()
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return str(value).replace(" ", "_")


def _event(event: ParticipantEvent) -> str:
    name = type(event).__name__
    fields = [f"{name}={_event_value(getattr(event, name))}" for name in event.__struct_fields__]
    return " ".join([name, *fields])


def _event_value(value: Any) -> str:
    if isinstance(value, Member):
        return value.id
    seats = getattr(value, "seats", None)
    if seats is not None:
        return ",".join(
            seat.id if seat.standing is Standing.VOTER else f"{seat.id}({seat.standing})"
            for seat in seats
        )
    return "none" if value is None else str(value)
