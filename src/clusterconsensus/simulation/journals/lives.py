"""A member's life with its journal, on a disk that may lose power at any operation.

Before each operation every disk that a power failure could leave is opened again by the real code,
and compared with what was acknowledged so far and what was under way: everything acknowledged must
be there, of the rest whole units from its beginning, and nothing else (I-21, C-56). Of some of
these disks the recovery is itself interrupted, at each of its operations.

A log may be compacted, or given up for a snapshot; of what is allowed to go, any part may still be
there. A journal may be damaged and begin anew: then whatever is found is either still damaged, and
is salvaged once more, or it is the new one.

Three lives are told by hand and come by every way in which the journal writes. The others are
drawn: units of random shapes, processes that die in the middle of an operation and leave unsynced
writes to the next one, syncs that fail and forget their pages (W2), and power failures after which
life goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import Random

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import ZERO, Position
from clusterconsensus.errors import DamagedError, StoragePoisonedError
from clusterconsensus.simulation.journals.model import (
    DIRECTORY,
    DISK_ID,
    SEGMENT_BYTES,
    Deed,
    Expected,
    Salvaged,
    ballot,
    configuration,
    entries,
)
from clusterconsensus.simulation.journals.power import Outcomes, crash_states, whole_writes
from clusterconsensus.simulation.world.disk import Disk, PowerFailure
from clusterconsensus.storage.identity import Directory, open_directory
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.records import HEADER_BYTES
from clusterconsensus.storage.segments import segment_path

CLUSTER_ID = "c" * 32
OTHER_DISK_ID = "another"

NESTED_EVERY = 149
"""Every how many states recoveries are interrupted too."""

USED_EVERY = 4
"""Every how many states the journal that was recovered is written to, and lost power again."""


class DisprovedError(Exception):
    """The journal has shown something that it must not; says where, and what."""


Possible = tuple[Expected, list[Deed]]


class Life:
    """One member on one disk.

    Arguments:
        outcomes: Which contents of a file a power failure may leave (``power``).
        on_state: Called for each disk that was opened and found right.

    Raises:
        DisprovedError: from whatever is done with the journal.
    """

    def __init__(self, outcomes: Outcomes, on_state: Callable[[], None] | None = None) -> None:
        self.disk = Disk()
        self.disk.before = self.before
        self.outcomes = outcomes
        self.on_state = on_state
        self.acknowledged: list[Deed] = []
        self.under_way: list[Persist] = []
        self.compacting_to = 0
        self.salvaging_at: Position | None = None
        self.closed_at = 0
        self.has_identity = False
        self.joined = False
        self.joining = False
        self.dies_before = ""
        self.states = 0
        self.torn = 0
        self.nested = 0
        self.deaths = 0
        self.salvaged = 0
        self._directory: Directory | None = None
        self._journal: Journal | None = None

    # -- what a member does

    def open(self) -> None:
        """Open the directory and the journal. What it shows counts as acknowledged from now on."""
        self._directory = open_directory(self.disk, DIRECTORY, "shop", "a", DISK_ID)
        self.has_identity = True
        self._journal = self._open(self.disk, DISK_ID)
        shown = self._shown(self._journal, self._possible())
        if shown is None:
            raise DisprovedError(f"after opening: {self._journal.recovered}")
        self.acknowledged += shown[1]
        self.under_way = []
        self.compacting_to = 0
        self.salvaging_at = None

    def join(self) -> None:
        """Belong to a cluster."""
        assert self._directory is not None
        self.joining = True
        self._directory.join(CLUSTER_ID)
        self.joined = True

    def append(self, *units: Persist) -> None:
        """Append units with one call."""
        self.under_way = list(units)
        self.journal.append(units)
        self.acknowledged += units
        self.under_way = []

    def compact(self, seq: int) -> None:
        """Let the log forget what is up to ``seq``."""
        self.compacting_to = seq
        forgotten = self.journal.compact(seq)
        before = Expected(self.acknowledged)
        if forgotten != before.base.seq:
            if forgotten > seq:
                raise DisprovedError(f"asked to forget {seq}, {forgotten} are forgotten")
            self.acknowledged += before.compacted(forgotten)[-1:]
        self.compacting_to = 0

    def rot(self, number: int, offset: int) -> None:
        """A byte of a segment that others follow rots while the member is down."""
        path = segment_path(DIRECTORY, number)
        if not self.disk.flip(path, offset, offset % 8):
            raise DisprovedError(f"{path} has no offset {offset}")

    def salvage(self, base: Position) -> None:
        """The journal, which is damaged, begins anew; open it."""
        self.salvaging_at = base
        self.open()

    def close(self, commit: int) -> None:
        """An orderly end."""
        assert self._directory is not None
        self.closed_at = max(self.closed_at, commit)
        self.journal.close(commit)
        self._directory.close()

    @property
    def journal(self) -> Journal:
        """The journal, which must be open."""
        assert self._journal is not None
        return self._journal

    # -- what the disk could be found with

    def before(self, operation: str, path: str) -> None:
        """Check every disk that could be found now."""
        possible = self._possible()
        where = f"before operation {self.disk.operations}, {operation} {path}"
        for found in crash_states(self.disk, self.outcomes):
            self.states += 1
            self._check(Disk(found), possible, where)
            if self.states % NESTED_EVERY == 0:
                self._interrupt_recoveries(possible, where)
            if self.on_state is not None:
                self.on_state()
        if operation == self.dies_before:
            self.dies_before = ""
            raise PowerFailure(where)

    def _possible(self) -> list[Possible]:
        """What may be found, with what has happened since what is acknowledged."""
        expected = Expected(self.acknowledged)
        if self.salvaging_at is not None:
            deed = Salvaged(self.salvaging_at)
            expected.take(deed)
            return [(expected, [deed])]
        found: list[Possible] = [(expected, [])]
        for place, unit in enumerate(self.under_way, 1):
            expected = expected.copy()
            expected.take(unit)
            found.append((expected, [*self.under_way[:place]]))
        for forgotten in expected.compacted(self.compacting_to):
            shorter = expected.copy()
            shorter.take(forgotten)
            found.append((shorter, [forgotten]))
        return found

    def _shown(self, journal: Journal, possible: list[Possible]) -> Possible | None:
        """Which of the possible journals this is, down to what it knows to be chosen (W7)."""
        hint = journal.recovered.commit_hint
        for expected, deeds in possible:
            is_known = expected.commit <= hint <= max(expected.commit, self.closed_at)
            if is_known and expected.matches(journal):
                return expected, deeds
        return None

    def _open(self, disk: Disk, disk_id: str) -> Journal:
        """Open a journal as a member would, whether it is damaged or not."""
        try:
            return Journal.open(disk, DIRECTORY, disk_id=disk_id, segment_bytes=SEGMENT_BYTES)
        except DamagedError:
            if self.salvaging_at is None:
                raise
        self.salvaged += 1
        return Journal.salvage(
            disk,
            DIRECTORY,
            disk_id=disk_id,
            segment_bytes=SEGMENT_BYTES,
            base=self.salvaging_at,
        )

    def _check(self, found: Disk, possible: list[Possible], where: str) -> None:
        where = f"state {self.states}, {where}"
        try:
            self._open_and_compare(found, possible, where)
        except DisprovedError:
            raise
        except Exception as error:
            raise DisprovedError(f"{where}: {type(error).__name__}: {error}") from error

    def _open_and_compare(self, found: Disk, possible: list[Possible], where: str) -> None:
        directory = open_directory(found, DIRECTORY, "shop", "a", OTHER_DISK_ID)
        identity = directory.identity
        if identity.disk_id != DISK_ID and (self.has_identity or identity.disk_id != OTHER_DISK_ID):
            raise DisprovedError(f"{where}: the identity is {identity}")
        if (
            identity.cluster_id != CLUSTER_ID
            if self.joined
            else (identity.cluster_id and not self.joining)
        ):
            raise DisprovedError(f"{where}: the cluster of {identity}")
        journal = self._open(found, identity.disk_id)
        recovered = journal.recovered
        self.torn += recovered.torn is not None
        shown = self._shown(journal, possible)
        if shown is None:
            raise DisprovedError(f"{where}: {recovered}")
        if self.states % USED_EVERY:
            return
        # It must be usable, and what it showed must be durable now.
        expected = shown[0].copy()
        unit = Persist(0, ballot(1000), None, entries(expected.last_seq + 1, 1, 1000))
        journal.append([unit])
        expected.take(unit)
        after = Disk(found.snapshot_image())
        again = Journal.open(
            after, DIRECTORY, disk_id=identity.disk_id, segment_bytes=SEGMENT_BYTES
        )
        if not expected.matches(again):
            raise DisprovedError(f"{where}, used and found again: {again.recovered}")

    def _interrupt_recoveries(self, possible: list[Possible], where: str) -> None:
        """The same again for a crash during the recovery from a crash."""
        first = self.states % 5 * 23
        for image in islice(crash_states(self.disk, self.outcomes), first, first + 345, 115):
            disk = Disk(image)

            def before(operation: str, path: str, disk: Disk = disk) -> None:
                for found in crash_states(disk, whole_writes):
                    self.nested += 1
                    again = f"{where}, recovering, before {operation} {path}"
                    self._check(Disk(found), possible, again)

            disk.before = before
            directory = open_directory(disk, DIRECTORY, "shop", "a", DISK_ID)
            self._open(disk, directory.identity.disk_id)


def told(life: Life) -> None:
    """Creation, batches, groups, truncation, rollover, preparation, a large batch."""
    life.open()
    life.join()
    life.append(Persist(1, ballot(1)))
    life.append(Persist(2, None, None, (configuration(1), *entries(2, 2))))
    life.append(
        Persist(3, None, None, entries(4, 2), 1),
        Persist(4, None, None, entries(6, 1), 5),
        Persist(5, ballot(2, "b")),
    )
    life.append(
        Persist(6, ballot(3), 6, (*entries(6, 1, 3), configuration(7, 3)), 5),
        Persist(7, None, 7, entries(7, 2, 3), 6),
    )
    life.append(Persist(8, None, None, entries(9, 3, 3, 400), 8))
    while life.journal.prepare_next():
        pass
    life.append(Persist(9, None, None, entries(12, 3, 3, 400), 11))
    # Two units of which the second needs the next segment.
    life.append(
        Persist(10, None, None, entries(15, 1, 3, 300), 11),
        Persist(11, None, None, entries(16, 2, 3, 700), 14),
        Persist(12, ballot(4), 17, entries(17, 1, 4, 20), 14),
    )
    # One that is larger than any segment.
    life.append(Persist(13, None, None, entries(18, 2, 4, 5000), 17))
    life.append(Persist(14, None, 19, (), 18))
    life.close(18)
    life.before("the end", DIRECTORY)


def told_again(life: Life) -> None:
    """An orderly end and what comes after it: cutting off, promises, several of both at once."""
    life.open()
    life.join()
    life.append(
        Persist(1, ballot(4), None, (configuration(1, 4), *entries(2, 2, 4)), 2),
        Persist(2, None, 3, (), 2),
    )
    life.close(2)
    life.open()
    if not life.journal.recovered.clean:
        raise DisprovedError("the journal was closed in good order, and does not know of it")
    life.append(Persist(3, ballot(5), 3, entries(3, 2, 5), 2))
    life.append(
        Persist(4, ballot(6), 4, entries(4, 2, 6, 30), 3),
        Persist(5, ballot(7), 4, entries(4, 1, 7, 60), 3),
        Persist(6, None, None, (configuration(5, 7), *entries(6, 1, 7)), 4),
    )
    life.append(Persist(7, None, 6), Persist(8, None, None, entries(6, 4, 7, 80), 9))
    life.append(Persist(9, None, None, entries(10, 4, 7, 50), 24))
    life.close(13)
    life.before("the end", DIRECTORY)


def told_at_last(life: Life) -> None:
    """Compaction, a log that is given up, damage and what comes after it."""
    life.open()
    life.join()
    life.append(Persist(1, ballot(1), None, (configuration(1), *entries(2, 7, 1, 400)), 6))
    life.append(Persist(2, ballot(2), None, entries(9, 8, 2, 400), 7))
    # The second segment begins behind an entry that is cut off here; the log cannot begin there.
    life.append(Persist(3, ballot(3), 8, entries(8, 9, 3, 400), 7))
    life.append(Persist(4, None, None, entries(17, 8, 3, 400), 16))
    life.compact(15)
    life.compact(23)
    life.close(23)
    life.open()
    # A log that is longer than what it is given up for.
    life.append(Persist(5, ballot(4), None, (), 23, Position(ballot(3), 24)))
    life.append(Persist(6, None, None, entries(25, 12, 4, 300), 24))
    life.append(Persist(7, ballot(5), None, entries(28, 2, 5, 30), 24, Position(ballot(4), 27)))
    life.compact(27)
    life.append(Persist(8, None, None, entries(30, 20, 5, 300), 29))
    life.close(40)
    first = min(int(path[-12:-4]) for path in life.disk.paths() if "journal-" in path)
    life.rot(first, HEADER_BYTES + 200)
    life.salvage(Position(ballot(5), 41))
    life.append(Persist(9, ballot(6), None, entries(42, 3, 5, 30), 41))
    life.append(Persist(10, None, 43, entries(43, 12, 6, 400), 42))
    life.compact(52)
    life.close(52)
    life.open()
    life.append(Persist(11, None, None, (), 54, None, False))
    life.journal.forget_damaged()
    life.append(Persist(12, None, None, entries(55, 1, 6)))
    life.close(55)
    life.before("the end", DIRECTORY)
    if not life.salvaged:
        raise DisprovedError("the journal was damaged, and nobody has noticed")


class Drawn:
    """A life that chance decides.

    Arguments:
        chance: The same state gives the same life.
        steps: How many things happen.
    """

    def __init__(self, life: Life, chance: Random, steps: int = 12) -> None:
        self.life = life
        self.chance = chance
        self.steps = steps
        self.instance = 1

    def run(self) -> None:
        """Live, to the end."""
        life, chance = self.life, self.chance
        life.open()
        life.join()
        for _ in range(self.steps):
            what = chance.random()
            if what < 0.55:
                life.append(*self._units())
                life.journal.prepare_next()
            elif what < 0.63:
                life.close(Expected(life.acknowledged).commit)
                life.open()
            elif what < 0.73:
                life.compact(Expected(life.acknowledged).commit)
            elif what < 0.78:
                self._rot()
            else:
                self._die()
        life.before("the end", DIRECTORY)

    def _rot(self) -> None:
        """The member stops, and its first segment rots, if another one follows."""
        life, chance = self.life, self.chance
        expected = Expected(life.acknowledged)
        life.close(expected.commit)
        paths = [path for path in life.disk.paths() if "/journal-" in path]
        if len(paths) > 1 and life.disk.content(paths[1]).durable[HEADER_BYTES]:
            number = int(paths[0][-12:-4])
            life.rot(number, HEADER_BYTES + int(chance.random() * 50))
            base = expected.base
            for held in expected.entries[: expected.commit - expected.base.seq]:
                base = Position(held.ballot, held.seq)
            life.salvage(base)
        else:
            life.open()

    def _die(self) -> None:
        """The process dies before an operation or of a failure; the next one opens what it left,
        and may die over it as well."""
        life, chance = self.life, self.chance
        units = self._units()
        while True:
            life.deaths += 1
            operation = chance.choice(("pwrite", "datasync", "datasync", "rename"))
            if chance.random() < 0.3:
                life.disk.fail_next(operation, OSError(5, "input/output error"))
            else:
                life.dies_before = operation
            try:
                if units:
                    life.append(*units)
                else:
                    life.open()
            except (PowerFailure, StoragePoisonedError):
                pass
            life.dies_before = ""
            life.disk.kill()
            if chance.random() < 0.3:
                life.disk.after_power_failure(chance)
            else:
                life.disk.after_process_crash()
            life.disk.before = life.before
            units = []
            if chance.random() < 0.6:
                break
        life.open()

    def _units(self) -> list[Persist]:
        chance = self.chance
        expected = Expected(self.life.acknowledged)
        units: list[Persist] = []
        for number in range(1 + int(chance.random() * 3)):
            promised = truncate_from = base = recovering = None
            # No entry has a ballot above the promise.
            if chance.random() < 0.3 or expected.promised == ZERO:
                self.instance += 1
                promised = ballot(self.instance)
            instance = (promised or expected.promised).instance
            last_seq = expected.last_seq
            first = last_seq + 1
            if last_seq > expected.commit and chance.random() < 0.3:
                first -= 1 + int(chance.random() * min(3, last_seq - expected.commit))
                truncate_from = first
            elif chance.random() < 0.1:
                first = max(expected.commit, last_seq - 2, 1) + int(chance.random() * 4) + 1
                base = Position(ballot(instance), first - 1)
            if chance.random() < 0.1:
                recovering = not expected.recovering
            count = int(chance.random() * 4)
            size_bytes = chance.choice((0, 10, 10, 60, 300, 300, 2500))
            made = entries(first, count, instance, size_bytes)
            hint = max(0, last_seq - 2)
            unit = Persist(number, promised, truncate_from, made, hint, base, recovering)
            units.append(unit)
            expected.take(unit)
        return units


def live(life: Life, number: int) -> None:
    """Live one of the lives: 0 to 2 are told, every other is drawn, always the same."""
    if number == 0:
        told(life)
    elif number == 1:
        told_again(life)
    elif number == 2:
        told_at_last(life)
    else:
        Drawn(life, Random(number)).run()
