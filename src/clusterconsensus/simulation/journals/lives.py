"""A member's life with its journal, on a disk that may lose power at any operation.

Before each operation every disk that a power failure could leave is opened again by the real code,
and compared with what was acknowledged so far and what was under way: everything acknowledged must
be there, of the rest whole units from its beginning, and nothing else (I-21, C-56). Of some of
these disks the recovery is itself interrupted, at each of its operations.

Two lives are told by hand and come by every way in which the journal writes. The others are drawn:
units of random shapes, processes that die in the middle of an operation and leave unsynced writes
to the next one, syncs that fail and forget their pages (W2), and power failures after which life
goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import Random

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.errors import StoragePoisonedError
from clusterconsensus.simulation.journals.model import (
    DIRECTORY,
    DISK_ID,
    SEGMENT_BYTES,
    Expected,
    ballot,
    configuration,
    entries,
)
from clusterconsensus.simulation.journals.power import Outcomes, crash_states, whole_writes
from clusterconsensus.simulation.world.disk import Disk, PowerFailure
from clusterconsensus.storage.identity import Directory, open_directory
from clusterconsensus.storage.journal import Journal

CLUSTER_ID = "c" * 32
OTHER_DISK_ID = "another"

NESTED_EVERY = 149
"""Every how many states recoveries are interrupted too."""

USED_EVERY = 4
"""Every how many states the journal that was recovered is written to, and lost power again."""


class DisprovedError(Exception):
    """The journal has shown something that it must not; says where, and what."""


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
        self.acknowledged: list[Persist] = []
        self.under_way: list[Persist] = []
        self.closed_at = 0
        self.has_identity = False
        self.joined = False
        self.joining = False
        self.dies_before = ""
        self.states = 0
        self.torn = 0
        self.nested = 0
        self.deaths = 0
        self._directory: Directory | None = None
        self._journal: Journal | None = None

    # -- what a member does

    def open(self) -> None:
        """Open the directory and the journal. What it shows counts as acknowledged from now on."""
        self._directory = open_directory(self.disk, DIRECTORY, "shop", "a", DISK_ID)
        self.has_identity = True
        self._journal = Journal.open(
            self.disk, DIRECTORY, disk_id=DISK_ID, segment_bytes=SEGMENT_BYTES
        )
        possible = self._possible()
        shown = self._shown(self._journal, possible)
        if shown is None:
            raise DisprovedError(f"after opening: {self._journal.recovered}")
        self.acknowledged += self.under_way[: possible.index(shown)]
        self.under_way = []

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

    def _possible(self) -> list[Expected]:
        expected = Expected(self.acknowledged)
        found = [expected]
        for unit in self.under_way:
            expected = expected.copy()
            expected.take(unit)
            found.append(expected)
        return found

    def _shown(self, journal: Journal, possible: list[Expected]) -> Expected | None:
        """Which of the possible journals this is, down to what it knows to be chosen (W7)."""
        hint = journal.recovered.commit_hint
        for expected in possible:
            is_known = expected.commit <= hint <= max(expected.commit, self.closed_at)
            if is_known and expected.matches(journal):
                return expected
        return None

    def _check(self, found: Disk, possible: list[Expected], where: str) -> None:
        where = f"state {self.states}, {where}"
        try:
            self._open_and_compare(found, possible, where)
        except DisprovedError:
            raise
        except Exception as error:
            raise DisprovedError(f"{where}: {type(error).__name__}: {error}") from error

    def _open_and_compare(self, found: Disk, possible: list[Expected], where: str) -> None:
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
        journal = Journal.open(
            found, DIRECTORY, disk_id=identity.disk_id, segment_bytes=SEGMENT_BYTES
        )
        recovered = journal.recovered
        self.torn += recovered.torn is not None
        expected = self._shown(journal, possible)
        if expected is None:
            raise DisprovedError(f"{where}: {recovered}")
        if self.states % USED_EVERY:
            return
        # It must be usable, and what it showed must be durable now.
        expected = expected.copy()
        unit = Persist(0, ballot(1000), None, entries(len(expected.entries) + 1, 1, 1000))
        journal.append([unit])
        expected.take(unit)
        after = Disk(found.snapshot_image())
        again = Journal.open(
            after, DIRECTORY, disk_id=identity.disk_id, segment_bytes=SEGMENT_BYTES
        )
        if not expected.matches(again):
            raise DisprovedError(f"{where}, used and found again: {again.recovered}")

    def _interrupt_recoveries(self, possible: list[Expected], where: str) -> None:
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
            Journal.open(
                disk,
                DIRECTORY,
                disk_id=directory.identity.disk_id,
                segment_bytes=SEGMENT_BYTES,
            )


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
            elif what < 0.65:
                life.close(Expected(life.acknowledged).commit)
                life.open()
            else:
                self._die()
        life.before("the end", DIRECTORY)

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
            promised = truncate_from = None
            if chance.random() < 0.3:
                self.instance += 1
                promised = ballot(self.instance)
            last_seq = len(expected.entries)
            first = last_seq + 1
            if last_seq > expected.commit and chance.random() < 0.3:
                first -= 1 + int(chance.random() * min(3, last_seq - expected.commit))
                truncate_from = first
            count = int(chance.random() * 4)
            size_bytes = chance.choice((0, 10, 10, 60, 300, 300, 2500))
            made = entries(first, count, self.instance, size_bytes)
            unit = Persist(number, promised, truncate_from, made, max(0, last_seq - 2))
            units.append(unit)
            expected.take(unit)
        return units


def live(life: Life, number: int) -> None:
    """Live one of the lives: 0 and 1 are told, every other is drawn, always the same."""
    if number == 0:
        told(life)
    elif number == 1:
        told_again(life)
    else:
        Drawn(life, Random(number)).run()
