"""Runs stories: scripts of commands against the pure core, with what the members say as output.

A story is a text file. Lines with ``>`` are commands; the indented lines below one are what it made
the members and their clients say, which ``REWRITE_STORIES=1`` writes anew. ``expect`` commands say
nothing: they hold or fail, whether or not the output is rewritten.

Commands, with ``a``, ``b`` for members and ``a->b`` for the way from one to the other::

    lenient                    commands that make no sense are left out from here on; expectations
                               are not
    limits max_batch_bytes=1   other limits, before the cluster
    cluster a b c              a running cluster of these voters, without a master
    machine d [of c2]          a running member that belongs to no cluster (or to another one)
    elect a [with b c]         a's timer runs out and it becomes a serving master, by these alone
    win a [with b c]           the same, but of its first accept nothing is delivered yet
    tick a                     a looks at its clock
    timeout a                  time passes until a's timer runs out; only a notices. If a leads, its
                               own clock goes on until no answer counts any more
    beat a                     a's own clock goes on until its heartbeat is due, and it leaves
    wait 1.5                   time passes; nobody notices
    run 1.5                    time passes, and everything works as it should
    settle [a b]               everything under way (among these) is delivered
    deliver a->b [accept]      the first message (of this kind) is delivered
    deliver a->b all           all of them, one after another
    deliver a->b 2             the second message (so too after repeat, drop and stash)
    repeat a->b [accept]       it is delivered, and a copy stays under way
    drop a->b [accept|all]     it is lost
    stash a->b accept x        it is taken aside, as x
    unstash x                  x is delivered, as often as one likes
    cut a b, cut a->b, isolate a, heal
    wipe a                     a crashes and starts again with an empty disk
    forge a->b accept 99       an accept (or prepare, probe) of this instance arrives from a
    crash a [kept 1], crash a at write 3 [kept], restart a
    hold disk a, sync a [1], release disk a, hold apply a, release apply a
    session a b                the clients of these open their sessions
    submit a x=1 y+1           a's client submits these in one group
    append a x=1               a change that belongs to no session arrives at a
    resend a                   a's client sends again what it waits for
    give up a x=1              a's client stops waiting
    read a [lease]             a's client reads (and the master's lease is proof enough)
    add d via a [learner]      a's client has d added
    remove d via a [force], replace d via a [force], promote d via a, demote d via a
    priority d 3 via a, transfer b via a, transfer anybody via a
    stand a                    a's application wants it to lead
    disconnect a b             b hears that its connection to a broke
    diverge a                  a's state machine computes something else from now on
    snapshot a                 a takes a snapshot of what it has applied, and it is durable
    snapshot a alone           the same, and the log is forgotten up to there: no older one counts
    snapshot a begin           its state is caught as it is now; writing it takes until
    snapshot a end             now
    spoil a                    a's newest snapshot file is damaged, and so is none
    damage a                   a is down and its log is damaged: it keeps its promise and its
                               newest snapshot, and knows that it has lost something
    lose a 2                   a is down and the last two entries of its log are gone
    clock a -2                 a's clock is set back (or on)
    freeze a 2                 time passes, but neither for a nor for its clock

    expect master a [b] | no master | role a follower | leads a
    expect promised a 2:b | last a 3@2:b | commit a 3 | applied a 3 | entry a 3 2:b
    expect state a x=1 y=2 | same a b c | voters a b c at a
    expect client a x=1 gives 1 | client a x=1 waits | read a x=1
    expect said some text | unsaid some text   (of the command before)
    expect under way a->b accept | nothing a->b [accept]
    expect once x+1            executed once, as every member has it
    expect ballots 3           no more than these many ballots led
    expect wins a 3            a's last ballot has this instance
    expect snapshot a 5 | base a 3 | recovering a | whole a | lease a | without a (has no lease)
    expect answer a ok | answer a some text      (to a's last question about the membership)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from clusterconsensus.consensus import events
from clusterconsensus.consensus.messages import Accept, Group, Message, Prepare, Probe
from clusterconsensus.consensus.sessions import encode_requests
from clusterconsensus.consensus.types import Ballot
from clusterconsensus.simulation.cores.expectations import StoryError
from clusterconsensus.simulation.cores.member import Member
from clusterconsensus.simulation.cores.operations import Operations
from clusterconsensus.simulation.cores.world import Packet

ELECTION_KINDS = ("probe", "probereply", "prepare", "promise", "promisepull", "promisepart")


class Story(Operations):
    """One story while it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.stashed: dict[str, tuple[str, Packet]] = {}
        self.is_lenient = False
        self.commands: dict[str, Callable[[list[str]], None]] = {
            "cluster": lambda words: self.cluster.found(words),
            "machine": self.machine,
            "elect": self.elect,
            "win": self.win,
            "lenient": self.lenient,
            "limits": self.limits,
            "wipe": self.wipe,
            "forge": self.forge,
            "tick": lambda words: self.step(words[0], events.Tick()),
            "beat": lambda words: self.beat(self.member(words[0])),
            "timeout": lambda words: self.timeout(self.member(words[0])),
            "wait": self.wait,
            "run": self.run,
            "settle": self.settle,
            "deliver": self.deliver,
            "repeat": self.repeat,
            "drop": self.drop,
            "stash": self.stash,
            "unstash": self.unstash,
            "cut": self.cut,
            "isolate": self.isolate,
            "heal": lambda words: self.cluster.cuts.clear(),
            "crash": self.crash,
            "restart": lambda words: self.cluster.restart(self.member(words[0])),
            "hold": self.hold,
            "sync": self.sync,
            "release": self.release,
            "session": self.session,
            "submit": self.submit,
            "append": self.append,
            "resend": lambda words: self.cluster.send_calls(self.member(words[0])),
            "give": self.give_up,
            "read": self.read,
            "stand": lambda words: self.step(words[0], events.StartElection()),
            "disconnect": self.disconnect,
            "diverge": self.diverge,
            **self.operations,
        }

    def command(self, line: str) -> list[str]:
        """Do one command and return what was said."""
        name, *words = line.split()
        if name == "expect":
            expectation = self.expectations.get(words[0])
            if expectation is None:
                raise StoryError(f"no such expectation: {words[0]}")
            expectation(words[1:])
            return []
        if name not in self.commands:
            raise StoryError(f"no such command: {name}")
        self.cluster.tells_details = name not in ("elect", "win", "run", "settle", "session")
        try:
            self.commands[name](words)
        except StoryError as error:
            if not self.is_lenient:
                raise
            self.cluster.say(f"left out: {error}")
        self.rest()
        said, self.cluster.told = self.cluster.told, []
        self.said = said
        for member in self.cluster.by_id.values():
            if member.is_up:
                self.cluster.ghost.check_deeply(member)
        return said

    def rest(self) -> None:
        """Whatever members have to do at home they do at once: only messages wait."""
        for _ in range(1_000):
            busy = False
            for member in self.cluster.by_id.values():
                busy = self.cluster.work(member) or busy
            if not busy:
                return
        raise StoryError("a member does not come to rest")

    def step(self, member_id: str, event: events.Event) -> None:
        self.cluster.turn(self.member(member_id), [event])

    # -- commands

    def lenient(self, words: list[str]) -> None:
        self.is_lenient = True

    def limits(self, words: list[str]) -> None:
        pairs = (word.partition("=") for word in words)
        limits = self.cluster.limits
        changes = {name: type(getattr(limits, name))(float(value)) for name, _, value in pairs}
        self.cluster.limits = msgspec.structs.replace(limits, **changes)

    def wipe(self, words: list[str]) -> None:
        self.cluster.wipe(self.member(words[0]))

    def forge(self, words: list[str]) -> None:
        source, target = (self.member(member_id) for member_id in self.link(words[0]))
        ballot = Ballot(int(words[2]), source.name)
        last = source.local.log.last
        made: dict[str, Message] = {
            "accept": Accept(ballot, last, (), 0, 1),
            "prepare": Prepare(ballot, 0, last),
            "probe": Probe(ballot, 0),
        }
        data = msgspec.msgpack.encode(made[words[1]])
        self.cluster.receive(target, Packet(source.name, data, words[1]))

    def machine(self, words: list[str]) -> None:
        if words[1:2] == ["of"]:  # another cluster, which has no other part in the story
            self.cluster.add_machine(words[0]).store.cluster_id = words[2]
            self.cluster.start(self.member(words[0]))
            return
        for member_id in words:
            self.cluster.start(self.cluster.add_machine(member_id))

    def group(self, words: list[str]) -> list[str]:
        if "with" in words:
            return [words[0], *words[words.index("with") + 1 :]]
        return sorted(member.id for member in self.cluster.by_id.values() if member.is_up)

    def beat(self, member: Member) -> None:
        """No tick: a tick would also ask who has answered lately."""
        wait = member.running.master.deadline - self.cluster.now - member.clock_offset
        self.expect(wait < math.inf, f"{member} leads")
        member.clock_offset += max(0.0, wait)
        self.cluster.turn(member)

    def timeout(self, member: Member) -> None:
        if member.local.leads:
            limits = self.cluster.limits
            member.clock_offset += limits.election_timeout_seconds + limits.heartbeat_seconds
            self.cluster.turn(member, [events.Tick()])
            return
        deadline = member.running.election.deadline - member.clock_offset
        self.cluster.now = max(self.cluster.now, deadline)
        self.cluster.turn(member, [events.Tick()])

    def win(self, words: list[str]) -> None:
        group = self.group(words)
        member = self.member(words[0])
        self.timeout(member)
        for _ in range(100):
            for member_id in group:
                self.cluster.work(self.member(member_id))
            if member.local.leads:
                self.rest()
                return
            self.pass_on(group)
        raise StoryError(f"{member} does not win: it is {member.local.role}")

    def pass_on(self, group: list[str]) -> None:
        for source in group:
            for target in group:
                waiting = self.cluster.links.get((source, target), [])
                for packet in [p for p in waiting if p.kind in ELECTION_KINDS]:
                    waiting.remove(packet)
                    self.cluster.receive(self.member(target), packet)

    def elect(self, words: list[str]) -> None:
        group = self.group(words)
        self.win(words)
        self.cluster.settle(group)
        self.expect(self.member(words[0]).serves, f"{words[0]} serves")

    def wait(self, words: list[str]) -> None:
        self.cluster.now += float(words[0])

    def run(self, words: list[str]) -> None:
        self.cluster.run(float(words[0]))

    def settle(self, words: list[str]) -> None:
        self.cluster.settle(words or None)

    def deliver(self, words: list[str]) -> None:
        link = self.link(words[0])
        if words[1:] == ["all"]:
            while self.cluster.deliver(*link):
                self.rest()
        else:
            self.cluster.deliver(*link, self.place(link, words[1:]))

    def repeat(self, words: list[str]) -> None:
        link = self.link(words[0])
        self.cluster.deliver(*link, self.place(link, words[1:]), keep=True)

    def drop(self, words: list[str]) -> None:
        link = self.link(words[0])
        if words[1:] == ["all"]:
            self.cluster.links.pop(link, None)
        else:
            self.cluster.links[link].pop(self.place(link, words[1:]))

    def stash(self, words: list[str]) -> None:
        link = self.link(words[0])
        packet = self.cluster.links[link].pop(self.place(link, words[1:2]))
        self.stashed[words[2]] = (link[1], packet)

    def unstash(self, words: list[str]) -> None:
        if words[0] not in self.stashed:
            raise StoryError(f"nothing was taken aside as {words[0]}")
        target, packet = self.stashed[words[0]]
        self.cluster.receive(self.member(target), packet)

    def cut(self, words: list[str]) -> None:
        if len(words) == 1:
            self.cluster.cut(*self.link(words[0]), both=False)
        else:
            self.cluster.cut(self.member(words[0]).id, self.member(words[1]).id)

    def isolate(self, words: list[str]) -> None:
        for member_id in words:
            for other in self.cluster.by_id:
                if other != member_id:
                    self.cluster.cut(self.member(member_id).id, other)

    def crash(self, words: list[str]) -> None:
        member = self.member(words[0])
        if words[1:3] == ["at", "write"]:
            member.crash_at_persist = int(words[3])
            member.crash_keeps = words[4:] == ["kept"]
        else:
            self.cluster.crash(member, int(words[2]) if words[1:2] == ["kept"] else 0)

    def hold(self, words: list[str]) -> None:
        member = self.member(words[1])
        if words[0] == "disk":
            member.holds_disk = True
        else:
            member.holds_apply = True

    def sync(self, words: list[str]) -> None:
        batches = int(words[1]) if len(words) > 1 else None
        if not self.cluster.sync(self.member(words[0]), batches):
            raise StoryError(f"{words[0]} has nothing to sync")

    def release(self, words: list[str]) -> None:
        member = self.member(words[1])
        if words[0] == "disk":
            member.holds_disk = False
            self.cluster.sync(member)
        else:
            member.holds_apply = False
            self.cluster.apply(member)

    def session(self, words: list[str]) -> None:
        for member_id in words:
            member = self.member(member_id)
            self.cluster.send_calls(member, [])
            self.cluster.settle()
            self.expect(member.client.session > 0, f"{member} has a session")

    def submit(self, words: list[str]) -> None:
        member = self.member(words[0])
        self.expect(member.client.session > 0, f"{member} has a session")
        calls = self.cluster.submit(member, *words[1:])
        self.cluster.send_calls(member, [call.number for call in calls])

    def append(self, words: list[str]) -> None:
        """What it is does not matter to the protocol; the state machine will not execute it."""
        attempt = self.cluster.next_attempt
        self.cluster.next_attempt += 1
        group = Group(0, 1, 1, 1, encode_requests([words[1].encode()]))
        self.cluster.turn(self.member(words[0]), [events.SubmitLocal(attempt, group)])

    def give_up(self, words: list[str]) -> None:
        member = self.member(words[1])
        number = next(call.number for call in member.client.calls.values() if call.text == words[2])
        self.cluster.give_up(member, number)

    def read(self, words: list[str]) -> None:
        call = self.cluster.read(self.member(words[0]), lease=words[1:] == ["lease"])
        self.expect(call is not None, "there is one to ask")

    def disconnect(self, words: list[str]) -> None:
        name = self.member(words[0]).name
        for member_id in words[1:]:
            self.step(member_id, events.Disconnected(name))

    def diverge(self, words: list[str]) -> None:
        self.member(words[0]).machine.skew = 1


def tell(text: str) -> str:
    """Run a story and return it with the output that it really gives.

    Raises:
        StoryError: with the number of the line that does not hold.
    """
    story = Story()
    told: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("    "):
            continue
        told.append(line)
        if line.startswith("> "):
            try:
                told.extend("    " + said for said in story.command(line[2:]))
            except AssertionError as error:
                recent = "\n".join(["", *story.said[-5:], *story.cluster.told[-20:]])
                raise StoryError(f"line {number}, {line[2:]}: {error}{recent}") from error
    return "\n".join(told) + "\n"
