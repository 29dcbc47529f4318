"""What a story may expect: each of these holds or fails, and says nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

from clusterconsensus.consensus.types import Role
from clusterconsensus.simulation.cores.cluster import Cluster
from clusterconsensus.simulation.cores.member import Member


class StoryError(AssertionError):
    """An expectation of a story does not hold, or a command makes no sense."""


class Expectations:
    """The cluster that a story is about, and what may be asked of it."""

    def __init__(self) -> None:
        self.cluster = Cluster(chance=random.Random(4).random)
        self.cluster.tells = True
        self.said: list[str] = []
        self.expectations: dict[str, Callable[[list[str]], None]] = {
            "master": self.expect_master,
            "no": lambda words: self.expect_master([]),
            "leads": lambda words: self.expect(self.member(words[0]).local.leads, "leads"),
            "role": self.expect_role,
            "promised": lambda words: self.equal(str(self.member(words[0]).local.promised), words),
            "last": lambda words: self.equal(str(self.member(words[0]).local.log.last), words),
            "commit": lambda words: self.equal(str(self.member(words[0]).local.commit), words),
            "applied": lambda words: self.equal(str(self.member(words[0]).machine.applied), words),
            "entry": self.expect_entry,
            "state": self.expect_state,
            "same": self.expect_same,
            "voters": self.expect_voters,
            "client": self.expect_client,
            "read": self.expect_read,
            "said": lambda words: self.expect_said(words, present=True),
            "unsaid": lambda words: self.expect_said(words, present=False),
            "under": self.expect_under_way,
            "nothing": self.expect_nothing,
            "once": self.expect_once,
            "ballots": self.expect_ballots,
            "wins": self.expect_wins,
            "diverged": lambda words: self.expect(self.member(words[0]).diverged, "diverged"),
            "snapshot": lambda words: self.equal(
                str(self.member(words[0]).store.snapshot_seq), words
            ),
            "base": lambda words: self.equal(str(self.member(words[0]).local.log.base.seq), words),
            "recovering": lambda words: self.expect_recovering(words, recovering=True),
            "whole": lambda words: self.expect_recovering(words, recovering=False),
            "lease": lambda words: self.expect_lease(words, held=True),
            "without": lambda words: self.expect_lease(words, held=False),
            "answer": self.expect_answer,
        }

    def member(self, member_id: str) -> Member:
        if member_id not in self.cluster.by_id:
            raise StoryError(f"no member {member_id}")
        return self.cluster.by_id[member_id]

    def link(self, text: str) -> tuple[str, str]:
        source, arrow, target = text.partition("->")
        if not arrow:
            raise StoryError(f"{text} is no way from one member to another")
        return self.member(source).id, self.member(target).id

    def place(self, link: tuple[str, str], kinds: list[str]) -> int:
        """Where on a link the first message (of this kind) waits, or the one of this number."""
        if kinds and kinds[0].isdigit():
            if 0 < int(kinds[0]) <= len(self.cluster.links.get(link, ())):
                return int(kinds[0]) - 1
            raise StoryError(f"no message {kinds[0]} on {link[0]}->{link[1]}")
        for place, packet in enumerate(self.cluster.links.get(link, ())):
            if not kinds or packet.kind == kinds[0]:
                return place
        waiting = [packet.kind for packet in self.cluster.links.get(link, ())]
        raise StoryError(f"no such message on {link[0]}->{link[1]}: {waiting}")

    def expect(self, holds: bool, text: str) -> None:
        if not holds:
            raise StoryError(f"does not hold: {text}")

    def equal(self, found: str, words: list[str]) -> None:
        self.expect(found == words[1], f"{words[0]} has {found}, not {words[1]}")

    def expect_master(self, words: list[str]) -> None:
        found = sorted(member.id for member in self.cluster.by_id.values() if member.serves)
        self.expect(found == sorted(words), f"masters are {found}, not {sorted(words)}")

    def expect_role(self, words: list[str]) -> None:
        role = Role(" ".join(words[1:]))
        found = self.member(words[0]).local.role
        self.expect(found is role, f"{words[0]} is {found}, not {role}")

    def expect_entry(self, words: list[str]) -> None:
        found = self.member(words[0]).local.log.ballot_at(int(words[1]))
        self.expect(str(found) == words[2], f"{words[0]} holds {words[1]}@{found}")

    def expect_state(self, words: list[str]) -> None:
        values = self.member(words[0]).machine.values
        found = [f"{name}={value}" for name, value in sorted(values.items())]
        self.expect(found == sorted(words[1:]), f"{words[0]} has {found}")

    def expect_same(self, words: list[str]) -> None:
        machines = [self.member(member_id).machine for member_id in words]
        found = {(machine.applied, machine.checksum) for machine in machines}
        self.expect(len(found) == 1, f"(applied, checksum) are {sorted(found)}")

    def expect_voters(self, words: list[str]) -> None:
        log = self.member(words[-1]).local.log
        found = [seat.id for seat in log.configuration.seats if seat.is_voter]
        self.expect(found == words[:-2], f"the voters at {words[-1]} are {found}")

    def expect_client(self, words: list[str]) -> None:
        client = self.member(words[0]).client
        calls = [*client.calls.values(), *client.ended.values()]
        found = [call.outcome or "waits" for call in calls if call.text == words[1]]
        wanted = " ".join(words[3:] if words[2] == "gives" else words[2:])
        self.expect(found == [wanted], f"{words[1]} has {found}")

    def expect_read(self, words: list[str]) -> None:
        found = list(self.member(words[0]).client.reads.values())[-1].outcome or "waits"
        self.expect(found == " ".join(words[1:]), f"the read has {found}")

    def expect_said(self, words: list[str], *, present: bool) -> None:
        text = " ".join(words)
        said = any(text in " ".join(line.split()) for line in self.said)
        self.expect(said is present, f"{'said' if present else 'not said'}: {text}")

    def expect_under_way(self, words: list[str]) -> None:
        self.place(self.link(words[1]), words[2:])

    def expect_nothing(self, words: list[str]) -> None:
        waiting = [packet.kind for packet in self.cluster.links.get(self.link(words[0]), ())]
        found = [kind for kind in waiting if not words[1:] or kind == words[1]]
        self.expect(not found, f"under way are {found}")

    def expect_once(self, words: list[str]) -> None:
        for member in self.cluster.by_id.values():
            if member.is_up:
                times = sum(text == words[0] for *_, text in member.machine.executed)
                self.expect(times <= 1, f"{member} executed {words[0]} {times} times")
        done = sum(
            any(text == words[0] for *_, text in member.machine.executed)
            for member in self.cluster.by_id.values()
        )
        self.expect(done > 0, f"{words[0]} was executed")

    def expect_ballots(self, words: list[str]) -> None:
        found = [str(ballot) for ballot in sorted(self.cluster.ghost.masters)]
        self.expect(len(found) <= int(words[0]), f"led were {found}")

    def expect_recovering(self, words: list[str], *, recovering: bool) -> None:
        found = self.member(words[0]).local.recovering
        self.expect(found is recovering, f"{words[0]} is {'recovering' if found else 'whole'}")

    def expect_lease(self, words: list[str], *, held: bool) -> None:
        """By its own clock, as it would find at its next turn."""
        member = self.member(words[0])
        now = self.cluster.now + member.clock_offset
        found = now >= member.local.now and member.running.master.reads.has_lease(now)
        self.expect(found is held, f"{words[0]} has {'a' if found else 'no'} lease")

    def expect_answer(self, words: list[str]) -> None:
        client = self.member(words[0]).client
        found = "it waits" if client.asked else client.answer
        wanted = " ".join(words[1:])
        self.expect(found == wanted if wanted == "ok" else wanted in found, f"answered: {found}")

    def expect_wins(self, words: list[str]) -> None:
        found = self.member(words[0]).running.master.ballot.instance
        self.expect(found == int(words[1]), f"{words[0]} led in {found}")
