"""What the rules mean, for somebody who has never read the protocol.

A failing run names a rule. ``explanation`` says what that rule promises, what its violation means
for who uses a cluster, and where in the source to look. The precise words are those of
``docs/protocol.md``.
"""

from __future__ import annotations

from typing import NamedTuple


class Explanation(NamedTuple):
    """``promise``, ``meaning`` and ``place``: one short paragraph each."""

    promise: str
    meaning: str
    place: str


_LOST = "An acknowledged write can be lost: a client was told that it is safe, and it is gone."
_SPLIT = (
    "The members no longer agree (split brain): clients of one see writes that clients of "
    "another never see, and nothing puts that right by itself."
)

INVARIANTS = {
    1: Explanation(
        "Every place in the replicated log holds one value, for ever and on every member.",
        _SPLIT,
        "Two members committed different entries at one sequence. Find the two masters that "
        "appended them, and how the later one was elected without the earlier entry (E5, E6), or "
        "how a member committed what its master never verified (R6).",
    ),
    2: Explanation(
        "In one ballot (one term of office) there is at most one master.",
        "Two members give orders with the same authority, and followers cannot tell them apart. "
        + _SPLIT,
        "Somebody promised one ballot twice: a promise that was not durable before it was said "
        "(D1, D2), a ballot without its owner's name, or a quorum that is no majority.",
    ),
    3: Explanation(
        "If two logs hold the same entry at one place, they are equal up to that place.",
        "Comparing the ends of two logs no longer tells who has more, and every election relies "
        "on that. " + _LOST,
        "A follower appended behind an entry that it does not hold (R1e), or a master changed what "
        "it had given out (R2).",
    ),
    4: Explanation(
        "A new master starts with everything that was committed before it.",
        _LOST,
        "Look at the election of the new master. Who promised? Did a member of that majority hold "
        "the missing entry, and was its log adopted (E5, E6)? Was the entry rightly called "
        "committed: held durably by a majority, in the ballot of its master (R5)?",
    ),
    5: Explanation(
        "A member that promised to follow no older master keeps its word, after a restart too.",
        "A deposed master can still collect acknowledgements while its successor does the same. "
        + _SPLIT,
        "A promise said before the disk had it (D1 to D3), a restart that read an older one (W7), "
        "or an accept that did not raise the promise (R1b).",
    ),
    6: Explanation(
        "What a member knows to be committed, and what it has applied, only ever grows.",
        "A member takes back what it has shown. A reader sees a value and then an older one.",
        "The commit of a follower (R6), and what a member starts with after a crash (W7).",
    ),
    7: Explanation(
        "What is committed is never cut off a log.",
        _LOST,
        "The cut happened where a follower's log differed from its master's (R1f), or in an "
        "election (E5). One of the two logs lacked an entry that it had to have: see I-4.",
    ),
    8: Explanation(
        "When a member says that it holds the log up to some place, its disk does.",
        "The master counts copies that do not exist. " + _LOST,
        "What the acknowledgement names as its match: the smaller of what was verified in this "
        "ballot and what is durable (D3).",
    ),
    9: Explanation(
        "A master changes its log only by appending to the end.",
        "The same place is given out twice, to different writes. " + _SPLIT,
        "Where the master appends (R2, R4), and whether it had stepped down before (E9).",
    ),
    10: Explanation(
        "Committed means that a majority of the voters has it on disk, and an entry of the "
        "current master at or behind it.",
        "Something is called safe of which too few copies exist. " + _LOST,
        "How the master counts (R5, D4): older entries by their own count, its own copy before its "
        "sync, or by a configuration that is not the latest (M5).",
    ),
    11: Explanation(
        "Members are added one at a time, each only when the change before it is settled.",
        "Two groups of members can both believe to be the majority. " + _SPLIT,
        "The conditions for appending a configuration: the last one is committed (M2), and an "
        "entry of the master's own ballot is (M3).",
    ),
    12: Explanation(
        "Only members with a vote are counted, and each is counted once.",
        "A minority decides. " + _LOST,
        "The voters that the count is taken from: those of the latest configuration in the log "
        "(M5), known by id and disk (I2).",
    ),
    13: Explanation(
        "Members that have applied the same log are in the same state.",
        "Two members answer the same question differently, although no write was lost.",
        "Something in the application or in applying it is not deterministic, or an entry was "
        "skipped or applied twice (R8, R9). Compare the results at the first sequence that "
        "differs.",
    ),
    14: Explanation(
        "A snapshot that says it holds everything up to some place holds exactly that.",
        "A member that starts from the snapshot lacks a write, or has it twice.",
        "The sequence at which the snapshot is taken, and the first entry applied behind it.",
    ),
    15: Explanation(
        "However often a request is sent, it takes effect once.",
        "A write happened twice: money was transferred twice.",
        "The table of outcomes by session and number (X1): was the repetition found when it was "
        "applied, and had the outcome not been forgotten too early?",
    ),
    16: Explanation(
        "The cluster behaves like one computer that does one thing after another: who reads after "
        "a write was acknowledged sees it.",
        "A client saw something impossible: an old value after a newer one, or a write that was "
        "acknowledged and is not there.",
        "Start with the calls marked as wrong in the client history. For a read: did its master "
        "prove that it still led after the question came (L1), and had it committed an entry of "
        "its own (E8)? For a write: see I-4 and I-15.",
    ),
    17: Explanation(
        "Nobody is told that a write is done before it is safe.",
        _LOST + " It may show only after the next crash.",
        "Where the answer leaves: after committing and applying (D10), both behind the disk (D5).",
    ),
    18: Explanation(
        "At most one member at a time believes that it may answer reads alone.",
        "A client reads an old value from a member that was deposed long ago.",
        "The time for which a lease is believed on either side, and what clocks it is measured by.",
    ),
    19: Explanation(
        "A member that lost its disk, or that belongs to another cluster, has no say.",
        "A member that forgot what it acknowledged votes as if it had never done so. " + _LOST,
        "What a message says about its cluster, source and disk (I2, I4), and who may open a "
        "directory (W6).",
    ),
    20: Explanation(
        "A member that was removed never acts again.",
        "A forgotten machine comes back and takes part in elections. " + _SPLIT,
        "Whom votes are counted from (M5), and whether ids are used twice (I3).",
    ),
    21: Explanation(
        "Whatever was acknowledged survives any crash, also of all members at once.",
        _LOST,
        "What was on the disk when the acknowledgement left (D2, D3, D4), and what recovery kept "
        "of it (W3). Look at the crash before the loss, and at the last durable mark before it.",
    ),
    22: Explanation(
        "When a majority works and can talk, the cluster makes progress: writes succeed within a "
        "bounded time, all members come to the same state, and every caller gets an answer.",
        "The cluster is stuck, or somebody waits for ever, although nothing is broken any more. "
        "No data is lost by that.",
        "Is there a master? If candidates keep failing: do refusals tell the higher ballot (E2), "
        "are the timers random (E1, E10)? If there is one: does it send to who lags (R3), has its "
        "own disk answered (E9)? If only a caller waits: who should repeat its request (X3)?",
    ),
}

RULES = {
    "D1": Explanation(
        "A candidate has its own promise on disk before it asks for votes.",
        "After a crash it may help an older master. See I-5. " + _SPLIT,
        "Where Prepare is sent, in the module election.",
    ),
    "D2": Explanation(
        "A promise is on disk before it is said.",
        "After a crash a voter does not know whom it voted for, and votes again. " + _SPLIT,
        "Where Promise is sent, in the module acceptor.",
    ),
    "D3": Explanation(
        "Entries are on disk before a member says that it holds them.",
        "A crash takes away a copy that was counted. " + _LOST,
        "What Accepted names as its match, in the modules acceptor and local.",
    ),
    "D5": Explanation(
        "An entry is applied when it is committed, and durable here.",
        "A member shows a change that a crash takes away from it.",
        "How far a member applies, in the module local.",
    ),
    "M2": Explanation(
        "The members are changed again only when the last change is committed.",
        "Two groups of members can both believe to be the majority. " + _SPLIT,
        "Where a configuration is appended, in the module membership. See I-11.",
    ),
    "D7": Explanation(
        "A snapshot is whole and on disk, under its name, before anybody counts on it.",
        "The log is forgotten, and what should stand in for it is not there after a crash. "
        + _LOST,
        "Where a snapshot is written and given its name, in the module storage/snapshots.",
    ),
    "E11": Explanation(
        "A mastership that is called handed over was: the other one has led.",
        "An operator takes a machine away that still leads. No data is lost by that.",
        "How a handover ends, in the modules handover and membership.",
    ),
    "L4": Explanation(
        "A local read with a bound on its age sees everything that was acknowledged before.",
        "A client that accepts values a second old gets one that is older.",
        "When a member takes itself for current (runtime/questions), and by what clock.",
    ),
    "M6": Explanation(
        "A change of the membership that is called achieved is so, in a configuration that is "
        "committed.",
        "An operator goes on with the next step while the first one may still be lost.",
        "What answers a request, in the module membership: the configuration must be committed.",
    ),
    "M8": Explanation(
        "A member believes that it was removed only if it was.",
        "A member that belongs takes itself out: one vote fewer, until somebody looks.",
        "Who says so: a committed configuration, or a member that has one (modules local and "
        "acceptor).",
    ),
    "S4": Explanation(
        "A log gives way to a snapshot only when that is durable.",
        "After a crash neither the log nor the snapshot is there. " + _LOST,
        "What happens when the last piece is there, in the module catchup, and at a start "
        "(runtime/restoring).",
    ),
    "S6": Explanation(
        "What is forgotten of the log is in a snapshot that is durable and whole.",
        "After a crash a part of the history is nowhere. " + _LOST,
        "How far the log is compacted, in the module catchup.",
    ),
    "W3": Explanation(
        "Damage is told from what a crash tears: a disk that nobody damaged is opened as it is.",
        "A member loses its vote, or stays down, though nothing is wrong with it.",
        "What recovery takes for damage, in the modules storage/recovery and runtime/restoring.",
    ),
    "W5": Explanation(
        "A member that lost what it had acknowledged votes again only when it has all of it.",
        "It votes as if it had never acknowledged what is gone. " + _LOST,
        "Up to where it must be whole: what its master says, of which ballot, to which question "
        "(module recovery).",
    ),
    "X4": Explanation(
        "A caller that is told “not applied” can rely on it: the write has not happened "
        "and never will. What is not known is called unknown.",
        "A write that was reported as failed took effect all the same. Whoever tried again has it "
        "twice.",
        "The attempt numbers of submits: a member must ignore an attempt that it refused once, "
        "however often the network repeats it (module replica, runtime/submits).",
    ),
    "agreement": INVARIANTS[1],
    "linearizability": INVARIANTS[16],
    "liveness": INVARIANTS[22],
    "determinism": Explanation(
        "The same seed gives the same run, event for event.",
        "A failure that this simulator finds might not be found again.",
        "Something depends on what is not drawn from the seed: a real clock, the order of a set, "
        "the address of an object.",
    ),
    "crash": Explanation(
        "No fault of the network, the disks or other members makes the code itself fail.",
        "A member died of an exception that nobody foresaw. The others go on if they are a "
        "majority, but the same cause can strike them too.",
        "The traceback in the log, and the last events of that member before it.",
    ),
}

_SECTIONS = {
    "D": "what must be durable before it is said (section 3)",
    "E": "electing a master (section 4)",
    "R": "replication (section 5)",
    "S": "catching up and compaction (section 6)",
    "L": "reads (section 7)",
    "X": "clients and the outcomes of their calls (section 8)",
    "I": "who is who (section 9)",
    "M": "membership (section 10)",
    "W": "storage, restart and damage (section 11)",
    "K": "the shape of the code (section 13)",
}


def explain(rule: str) -> Explanation:
    """What a rule promises, what its violation means, where to look; for any rule.

    Arguments:
        rule: ``I-4``, ``X4``, ``crash`` … A rule without an explanation of its own gets one of the
            section that it belongs to.
    """
    head, _, number = rule.partition("-")
    if head == "I" and number.isdigit() and int(number) in INVARIANTS:
        return INVARIANTS[int(number)]
    if rule in RULES:
        return RULES[rule]
    if rule[:1] in _SECTIONS and rule[1:2].isdigit():
        return Explanation(
            f"This is a rule about {_SECTIONS[rule[0]]} of the protocol.",
            "Rules keep the promises that users rely on. A broken one may have done no harm in "
            "this run, and do it in another.",
            f"Rule {rule} in docs/protocol.md names the module that implements it.",
        )
    return Explanation(
        f"“{rule}” is checked by the simulator and is no rule of the protocol page.",
        "What was found stands in the sentence above.",
        "The last events before the finding.",
    )


def explanation(rule: str) -> str:
    """``explain`` as one text of three paragraphs."""
    return "\n\n".join(explain(rule))
