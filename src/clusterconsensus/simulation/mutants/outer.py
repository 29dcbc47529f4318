"""Mutants of the outer layers: the driver, the mail, starts, calls, frames and connections.

Most die in whole clusters, by a few seeds; those that clusters meet too seldom die by a drill.
"""

from __future__ import annotations

from clusterconsensus.participant import Participant
from clusterconsensus.runtime import opening
from clusterconsensus.runtime.driver import Driver
from clusterconsensus.runtime.mail import Mail
from clusterconsensus.runtime.opening import Opened
from clusterconsensus.runtime.submits import Submits
from clusterconsensus.runtime.writing import Writing
from clusterconsensus.simulation.mutants.table import Mutant, edited, table, together
from clusterconsensus.storage import identity
from clusterconsensus.transport import wire
from clusterconsensus.transport.accept import AcceptedConnection
from clusterconsensus.transport.wire import FrameParser

MUTANTS = table(
    # -- who one is
    Mutant(
        "joins-before-the-identity-is-durable",
        "a member takes part before the id of its cluster is on its disk",
        ("D9", "I1"),
        edited(
            Driver,
            "_join",
            (
                "self.parts.writer.call(lambda: self.parts.join(cluster_id), done)",
                "done(None, None)\n"
                "    self.parts.writer.call(lambda: self.parts.join(cluster_id), lambda *_: None)",
            ),
        ),
        "D9",
        drill="joining",
    ),
    Mutant(
        "cluster-only-in-memory",
        "a member never writes down which cluster has taken it in",
        ("I1", "D9", "I-22"),
        edited(
            Driver,
            "_join",
            (
                "self.parts.writer.call(lambda: self.parts.join(cluster_id), done)",
                "done(None, None)",
            ),
        ),
        "D9",
        cluster_seeds=range(1),
    ),
    Mutant(
        "founded-only-in-memory",
        "the founder never writes down which cluster it has founded",
        ("D9", "I1", "I-22"),
        edited(
            Opened,
            "found",
            ("await call(parts.writer, lambda: self.directory.found(cluster_id))", "pass"),
        ),
        "D9",
        cluster_seeds=range(2, 3),
    ),
    Mutant(
        "identity-written-in-place",
        "the identity is written over itself instead of replaced as a whole (C-6)",
        ("D9", "I-21"),
        edited(
            identity,
            "_write",
            ('f"{path}/{IDENTITY}.new"', 'f"{path}/{IDENTITY}"'),
            ("files.rename(temporary, file)", "pass"),
        ),
        "I-21",
        lives=range(10),
    ),
    # -- starts
    Mutant(
        "start-applies-one-too-many",
        "a start applies one entry more than is known to be chosen",
        ("W7", "I-10"),
        edited(
            opening,
            "_open",
            (
                "min(recovered.commit_hint, recovered.last_seq)",
                "min(recovered.commit_hint + 1, recovered.last_seq)",
            ),
        ),
        "I-10",
        cluster_seeds=range(6, 7),
    ),
    Mutant(
        "log-behind-the-hint-forgotten",
        "a start forgets the entries of which it is not known whether they are chosen",
        ("W7", "I-21"),
        edited(opening, "_open", ("while log.last_seq < recovered.last_seq:", "while False:")),
        "I-21",
        cluster_seeds=range(1),
    ),
    Mutant(
        "promise-forgotten-at-start",
        "a start takes the ballot of its last entry for its promise (C-35)",
        ("I-5", "D2"),
        edited(
            opening,
            "_open",
            ("recovered.promised,\n", "log.last.ballot,\n"),
        ),
        "I-5",
        cluster_seeds=range(3, 4),
    ),
    Mutant(
        "checksum-begins-anew",
        "the rolling checksum begins anew with each start",
        ("R9", "I-13"),
        edited(
            opening,
            "_open",
            ("applier.checksum,\n", "0,\n"),
        ),
        "I-13",
        cluster_seeds=range(1),
    ),
    # -- the disk
    Mutant(
        "gathered-counts-as-durable",
        "when a write is durable, what has gathered behind it counts as durable too",
        ("D3", "I-8"),
        edited(
            Writing,
            "flush",
            ("(batch[-1].ticket)", "((self._gathered or batch)[-1].ticket)"),
        ),
        "D3",
        cluster_seeds=range(1),
    ),
    Mutant(
        "first-of-a-write-counts",
        "of several units in one write the core hears of the first only",
        ("I-22",),
        edited(Writing, "flush", ("(batch[-1].ticket)", "(batch[0].ticket)")),
        "I-22",
        cluster_seeds=range(2, 3),
    ),
    Mutant(
        "full-disk-changes-the-order",
        "what did not fit on a full disk is written behind what came later",
        ("W2", "R2"),
        edited(Writing, "flush", ("self._gathered[:0] = batch", "self._gathered.extend(batch)")),
        "W2",
        drill="writing",
    ),
    # -- the turn
    Mutant(
        "timer-is-never-set-again",
        "once it has rung, the timer is taken for one that is still set",
        ("R7", "I-22"),
        edited(Driver, "_on_timer", ("self._timer = None", "pass")),
        "I-22",
        cluster_seeds=range(1),
    ),
    Mutant(
        "reads-hear-of-no-master",
        "reads are not told who leads: each waits until its time is up",
        ("L1", "I-22"),
        edited(Driver, "_on_role_changed", ("self.reads.on_leader(leader)", "pass")),
        "I-22",
        drill="reading",
    ),
    # -- outcomes
    Mutant(
        "outcomes-of-another-session",
        "outcomes of another member's requests are taken for those of one's own numbers",
        ("X1", "I-17"),
        edited(Driver, "on_group", ("if session == self.submits.session:", "if True:")),
        "I-17",
        cluster_seeds=range(1, 2),
    ),
    Mutant(
        "every-part-begins-the-reply",
        "each part of a long reply claims to be its beginning",
        ("X4", "I-16"),
        edited(Mail, "reply", ("Refusal.NONE, part, start", "Refusal.NONE, part, 0")),
        "X4",
        drill="replies",
    ),
    Mutant(
        "every-part-is-the-beginning",
        "each part of a long reply is taken for its beginning",
        ("X4", "I-16"),
        edited(Submits, "on_reply", ("(sent.first + offset, outcomes)", "(sent.first, outcomes)")),
        "X4",
        drill="replies",
    ),
    Mutant(
        "asking-again-is-forgotten",
        "who asks again for an unknown outcome in vain is told that it was not applied",
        ("X4", "I-16"),
        edited(Submits, "retry", ("self._asked_again.add(number)", "pass")),
        "X4",
        drill="asking again",
    ),
    Mutant(
        "closing-forgets-asking-again",
        "a participant that closes calls what is asked for again not applied",
        ("X4", "I-16"),
        edited(
            Submits,
            "close",
            ("if number in sent or number in self._asked_again:", "if number in sent:"),
        ),
        "X4",
        drill="asking again",
    ),
    Mutant(
        "stopped-means-not-applied",
        "a participant that stops calls everything that waits not applied",
        ("X4", "I-16"),
        edited(
            Submits,
            "close",
            ("if number in sent or number in self._asked_again:", "if False:"),
        ),
        "X4",
        cluster_seeds=range(24, 25),
    ),
    Mutant(
        "stopped-means-not-retried",
        "asking again at a participant that stops calls a change not applied that may be",
        ("X4",),
        edited(
            Participant,
            "retry",
            (
                'raise OutcomeUnknownError(f"request {error.request}: {stopped}") from stopped',
                "raise",
            ),
        ),
        "X4",
        cluster_seeds=range(180, 181),
    ),
    Mutant(
        "groups-mixed-up",
        "the outcomes of every group of an entry go to whoever sent the first",
        ("X4", "I-16"),
        edited(Driver, "on_group", ("origin = origins[place]", "origin = origins[0]")),
        "X4",
        drill="answers",
    ),
    Mutant(
        "waiting-is-acknowledged",
        "requests that still wait for their outcome count as acknowledged",
        ("X1", "I-17"),
        edited(Submits, "_acked_below", ("if self._pending:", "if False:")),
        "I-17",
        cluster_seeds=range(1),
    ),
    Mutant(
        "gaps-in-a-group",
        "a group counts on from its first request, though some in between are done",
        ("I-15", "X1", "I-13"),
        edited(Submits, "flush", ("number != first + len(requests)", "False")),
        "I-15",
        cluster_seeds=range(2, 3),
    ),
    Mutant(
        "preparing-never-ends",
        "once the next journal file is prepared nothing is written any more",
        ("I-22",),
        edited(Writing, "_prepare", ("self._go_on()", "pass")),
        "I-22",
        cluster_seeds=range(1, 2),
    ),
    # -- messages
    Mutant(
        "sent-to-the-first-only",
        "of several members that a message is for, the first one gets it",
        ("E3", "I-22"),
        edited(Mail, "on_send", ("in effect.to:", "in effect.to[:1]:")),
        "E3",
        drill="answers",
    ),
    Mutant(
        "disk-is-not-named",
        "messages do not say which disk they are for: another one may take them (C-42)",
        ("I0", "I4"),
        edited(Mail, "_send", ("header(member_id, disk_id)", 'header(member_id, "")')),
        "I0",
        drill="answers",
    ),
    Mutant(
        "frames-are-not-checked",
        "a frame is believed whatever its checksum says",
        ("I4", "I-16"),
        edited(FrameParser, "advance", ("if crc32(content, channel) != crc:", "if False:")),
        "I4",
        drill="frames",
    ),
    Mutant(
        "channel-is-not-checked",
        "the checksum of a frame does not cover its channel: a flip gives it to another cluster",
        ("I4",),
        together(
            edited(wire, "encode_frame", ("crc32(content, channel)", "crc32(content)")),
            edited(FrameParser, "advance", ("crc32(content, channel)", "crc32(content)")),
        ),
        "I4",
        drill="frames",
    ),
    Mutant(
        "frames-have-no-limit",
        "a frame may be as long as it claims to be",
        ("K4",),
        edited(FrameParser, "advance", ("if length > limit:", "if False:")),
        "K4",
        drill="frames",
    ),
    Mutant(
        "channels-mixed-up",
        "every message of a connection goes to the cluster that was opened first",
        ("I4",),
        edited(
            AcceptedConnection,
            "_deliver",
            ("self._inlets.get(channel)", "next(iter(self._inlets.values()), None)"),
        ),
        "I4",
        drill="channels",
    ),
    Mutant(
        "only-one-cluster-hears-of-the-end",
        "of several clusters on a broken connection the first one hears of it",
        ("E13",),
        edited(
            AcceptedConnection,
            "connection_lost",
            ("for inlet in inlets.values():", "for inlet in list(inlets.values())[:1]:"),
        ),
        "E13",
        drill="channels",
    ),
)
