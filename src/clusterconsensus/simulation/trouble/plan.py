"""The plan of a seed: which faults there are, when, and what the cluster and its clients look like.

Swarm testing (Groce and others, *Swarm Testing*, ISSTA 2012): a seed does not have a little of
every fault but draws a subset of them, and strengths. So some seeds have nothing but lost messages,
others nothing but broken disks, and what hides behind a combination meets all combinations.

The plan is drawn before anything runs, as a list of numbered *actions*, each with a source of
chance of its own. So a run can be repeated with fewer actions, and ``shrink`` does that.
"""

from __future__ import annotations

from random import Random

import msgspec

from clusterconsensus.settings import KIB, Settings
from clusterconsensus.simulation.workloads import BUILT_IN


class Fault(msgspec.Struct, frozen=True):
    """One kind of fault.

    Attributes:
        name: As ``--faults`` takes it.
        what: For people.
        every_seconds: About how often it strikes where it is drawn; 0 for one that colours the
            whole run.
        likely: How likely a seed draws it. 0: only by name, because no cluster survives it.
    """

    name: str
    what: str
    every_seconds: float
    likely: float


FAULTS: tuple[Fault, ...] = (
    # processes
    Fault("kill", "a process is killed, and comes back soon or late", 15, 0.5),
    Fault("close", "a process is stopped in good order, and comes back", 20, 0.3),
    Fault("power", "a machine loses power: what was not synced is kept, lost or torn", 15, 0.5),
    Fault("power-in-operation", "the power fails between two file operations", 15, 0.5),
    Fault("restart-all", "every process is killed, and all come back", 60, 0.2),
    Fault("power-all", "every machine loses power at once", 60, 0.2),
    Fault("kill-master", "the master is killed", 15, 0.3),
    Fault("pause", "a process stops for a while; its clock runs", 20, 0.4),
    Fault("freeze", "a process stops for a while, and its clock with it", 25, 0.25),
    # disks
    Fault("slow-disk", "a disk is slow for a while", 25, 0.4),
    Fault("hung-disk", "a disk finishes nothing for a while", 30, 0.3),
    Fault("failed-sync", "a sync fails, its pages are dropped, the next one succeeds", 30, 0.3),
    Fault("failed-write", "a write fails", 40, 0.2),
    Fault("full-disk", "a disk has no space for a while", 40, 0.25),
    Fault("rot", "something at rest is damaged: a bit, a block, a misdirected block", 40, 0.25),
    Fault("rot-last", "the very last write is damaged, at a member that is paranoid (W3)", 40, 0.2),
    Fault("wipe", "a machine comes back with an empty disk", 60, 0.15),
    Fault("flip-journal", "a bit of a journal flips under a member that runs", 30, 0.25),
    Fault("flip-snapshot", "a bit of a snapshot flips", 25, 0.25),
    # snapshots
    Fault("snapshot-now", "somebody asks for a snapshot", 10, 0.3),
    Fault("slow-snapshot", "writing a snapshot takes long for a while", 20, 0.25),
    Fault("power-in-snapshot", "the power fails while a snapshot is written or received", 15, 0.3),
    Fault("power-in-install", "the power fails while a snapshot takes the log's place", 15, 0.3),
    # the network
    Fault("loss", "messages are lost", 0, 0.35),
    Fault("delay", "some messages are late, some very late", 0, 0.35),
    Fault("repeat", "messages arrive twice", 0, 0.3),
    Fault("overtake", "messages overtake each other", 0, 0.3),
    Fault("garble", "bits of frames flip, connections break in the middle of a frame", 0, 0.2),
    Fault("replay", "something very old arrives once more", 8, 0.3),
    Fault("misdeliver", "a message arrives at somebody else", 15, 0.2),
    Fault("cut", "two machines cannot reach each other", 15, 0.4),
    Fault("one-way", "a link works in one direction only", 15, 0.35),
    Fault("split", "the network falls into two parts", 20, 0.4),
    Fault("bridge", "two parts are held together by one machine", 25, 0.25),
    Fault("isolate", "a machine is cut off; it may still hear, or still speak", 20, 0.35),
    Fault("isolate-master", "the master is cut off", 20, 0.35),
    Fault("disconnect", "a connection is reset", 15, 0.3),
    Fault("block", "messages of some kinds do not pass", 25, 0.25),
    # on purpose, at the worst moment
    Fault("configuration-then-cut", "who has just written a configuration is cut off", 20, 0.3),
    Fault(
        "one-accept",
        "of what a master has just sent, one accept arrives; then it is cut off",
        20,
        0.4,
    ),
    Fault("elections", "members stand for election though all is well", 15, 0.35),
    Fault("duel", "several members stand for election at once, and accepts are lost", 25, 0.3),
    # applications
    Fault("slow-apply", "a state machine is slow for a while", 25, 0.3),
    Fault("elsewhere", "clients that got no answer ask somebody else, too", 0, 0.4),
    Fault("stranger", "another cluster tries to take in a member of this one", 20, 0.15),
    # clocks
    Fault("wall-clock", "a wall clock jumps", 20, 0.3),
    Fault("drift", "clocks run too fast or too slow", 0, 0.3),
    Fault("lease-clock", "clocks that leases depend on drift and jump, within the bound", 6, 0.25),
    # members
    Fault("members", "members are added, while everything else goes on", 30, 0.4),
    Fault("membership", "members come and go all the time, from one voter to all and back", 0, 0.3),
    Fault("remove-member", "a member is removed, the master too, and who is cut off", 25, 0.25),
    Fault("replace-wiped", "a machine gets an empty disk and takes its own place again", 25, 0.25),
    Fault("transfer", "the mastership is handed over", 10, 0.3),
    # beyond what any member is asked to survive
    Fault("old-image", "an old image of a disk is restored", 30, 0.0),
    Fault("lying-disk", "a disk reports syncs that it did not do, and loses power", 30, 0.0),
    Fault("lost-majority", "a majority of the disks is lost for good", 0, 0.04),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


class Action(msgspec.Struct, frozen=True):
    """Something that is done to the cluster ``at`` seconds after the trouble begins."""

    number: int
    at: float
    fault: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one seed does."""

    seed: int
    members: int
    spare: int
    """Further machines, which may be added."""
    machines: int = 0
    """How many there are from the beginning, those that belong to nothing included; at least those
    that belong."""
    seconds: float
    """How long the trouble lasts."""
    faults: tuple[str, ...]
    actions: tuple[Action, ...]
    workload: str
    clients: int
    pause_seconds: float
    patience_seconds: float
    burst: int
    settings: Settings

    def without(self, faults: frozenset[str]) -> Plan:
        """The same without some kinds of faults."""
        return msgspec.structs.replace(
            self,
            faults=tuple(name for name in self.faults if name not in faults),
            actions=tuple(action for action in self.actions if action.fault not in faults),
        )

    def only(self, numbers: frozenset[int]) -> Plan:
        """The same with these actions only."""
        return msgspec.structs.replace(
            self, actions=tuple(action for action in self.actions if action.number in numbers)
        )


def draw(
    seed: int,
    *,
    members: int | None = None,
    seconds: float | None = None,
    faults: tuple[str, ...] | None = None,
    workload: str | None = None,
) -> Plan:
    """Draw the plan of a seed.

    Arguments:
        seed: Which one.
        members: How many voters; drawn if None.
        seconds: How long the trouble lasts; drawn if None.
        faults: Their names; drawn if None.
        workload: One of ``BUILT_IN``, or ``own``; drawn if None.

    Raises:
        ValueError: there is no such fault.
    """
    chance = Random(f"{seed}/plan")
    count = chance.choice((1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5))
    drawn_seconds = chance.choice((10.0, 15.0, 20.0, 20.0, 30.0))
    strength = chance.choice((0.5, 1.0, 1.0, 2.0, 4.0))
    share = chance.choice((0.3, 0.7, 1.0, 1.5))
    drawn = tuple(
        fault.name
        for fault in FAULTS
        # A source of its own for each, so that a new kind of fault leaves the others as they are.
        if Random(f"{seed}/draw {fault.name}").random() < min(0.9, fault.likely * share)
    )
    for name in faults or ():
        if name not in BY_NAME:
            raise ValueError(f"no fault {name!r}; there are {', '.join(sorted(BY_NAME))}")
    names = drawn if faults is None else tuple(f.name for f in FAULTS if f.name in faults)
    lasts = drawn_seconds if seconds is None else seconds
    small = chance.random() < 0.6
    times = chance.choice((0.5, 1.0, 1.0))
    settings = Settings(
        election_timeout_seconds=times,
        heartbeat_seconds=times * chance.choice((0.1, 0.2, 0.2)),
        disk_timeout_seconds=times,
        retry_seconds=chance.choice((0.3, 1.0)),
        segment_bytes=64 * KIB,
        max_batch_bytes=2 * KIB if small else 64 * KIB,
        max_change_bytes=64 * KIB,
        max_message_bytes=256 * KIB,
        peer_queue_bytes=4096 * KIB,
        window_messages=3 if small else 64,
        window_bytes=256 * KIB,
        max_staged_bytes=64 * KIB if small else 1024 * KIB,
        max_pending_bytes=1024 * KIB,
        log_cache_bytes=6 * KIB if small else 256 * KIB,
        session_expiry_seconds=chance.choice((5.0, 60.0, 3600.0)),
        max_sessions=chance.choice((2, 10, 1000)),
        apply_slice_seconds=0.01,
    )
    settings = _with_snapshots(seed, names, settings)
    kind = workload or chance.choice(BUILT_IN)
    adds = "members" in names or "configuration-then-cut" in names
    return Plan(
        seed=seed,
        members=count if members is None else members,
        spare=chance.choice((1, 2)) if adds else 0,
        machines=max(count, 7) if "membership" in names else 0,
        seconds=lasts,
        faults=names,
        actions=_actions(seed, names, lasts, strength),
        workload=kind,
        clients=chance.choice((2, 3, 4, 5)),
        pause_seconds=chance.choice((0.1, 0.3, 0.5)),
        patience_seconds=chance.choice((0.3, 1.0, 3.0)),
        burst=chance.choice((1, 2, 5, 20)),
        settings=settings,
    )


def _with_snapshots(seed: int, names: tuple[str, ...], settings: Settings) -> Settings:
    """Settings under which snapshots are taken and sent in a short run, and leases in some."""
    chance = Random(f"{seed}/snapshots")
    keep = chance.choice((1, 1, 5, 50, 1_000))
    settings = msgspec.structs.replace(
        settings,
        snapshot_entries=chance.choice((10, 40, 40, 150, 1_000_000)),
        snapshot_log_bytes=chance.choice((4 * KIB, 32 * KIB, 1024 * KIB)),
        snapshot_on_close=chance.random() < 0.5,
        keep_log_entries=keep,
        max_kept_log_entries=max(keep, chance.choice((20, 10_000))),
        chunk_bytes=chance.choice((128, 1 * KIB, 16 * KIB)),
        catch_up_bytes_per_second=chance.choice((16 * KIB, 1024 * KIB)),
        read_timeout_seconds=5.0,
    )
    leases = Random(f"{seed}/leases").random() < 0.3 or "lease-clock" in names
    # Where clocks run as they like the bound must be as wide.
    drift = 0.5 if "drift" in names else 0.1
    return msgspec.structs.replace(settings, lease_reads=leases, max_clock_drift=drift)


def _actions(
    seed: int, names: tuple[str, ...], seconds: float, strength: float
) -> tuple[Action, ...]:
    """When each fault strikes. Each has a source of chance of its own, so leaving one out does not
    move the others."""
    times: list[tuple[float, str]] = []
    for name in names:
        chance = Random(f"{seed}/{name}")
        every = BY_NAME[name].every_seconds / strength
        if every <= 0:
            times.append((0.0, name))
            continue
        at = chance.random() * min(every, seconds)  # at least once
        while at < seconds:
            times.append((at, name))
            at += every * (0.3 + 1.4 * chance.random())
    times.sort()
    return tuple(Action(number, at, name) for number, (at, name) in enumerate(times, 1))
