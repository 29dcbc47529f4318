"""A power failure at every file operation: whatever it leaves, everything acknowledged is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal
from tests.storage.memory import MemoryFile, MemoryFiles, Node, every_cut, whole_writes
from tests.storage.model import (
    DISK,
    PATH,
    SMALL_BYTES,
    Expected,
    ballot,
    configuration,
    entries,
    read_all,
)

CLUSTER_ID = "c" * 32


class Run:
    """A member's life on a disk that may lose power at any operation.

    At each one every possible disk is opened again, and compared with what was acknowledged so far
    and what was under way.
    """

    def __init__(self, outcomes: Callable[[Node], list[bytes]], paranoid: bool = False) -> None:
        self.files = MemoryFiles()
        self.files.before = self.crash
        self.outcomes = outcomes
        self.acknowledged: list[Persist] = []
        self.under_way: list[Persist] = []
        self.has_identity = False
        self.joined = False
        self.joining = False
        self.founded = False
        self.states = 0
        self.torn = 0
        self.nested = 0

    def crash(self, operation: str) -> None:
        for found in self.files.crash_states(self.outcomes):
            self.states += 1
            self.check(found, f"before {operation} number {self.files.operations}")
            if self.states % 97 == 0:
                self.crash_while_recovering()

    def check(self, found: MemoryFiles, where: str) -> None:
        directory = open_directory(found, PATH, "shop", "a", "another")
        identity = directory.identity
        if self.has_identity:
            assert identity.disk_id == DISK, where
        assert identity.disk_id in (DISK, "another")
        if self.joined:
            assert identity.cluster_id == CLUSTER_ID
        assert identity.cluster_id == "" or self.joined or self.joining
        journal = Journal.open(found, PATH, disk_id=identity.disk_id, segment_bytes=SMALL_BYTES)
        self.torn += journal.recovered.torn is not None
        possible = [
            Expected([*self.acknowledged, *self.under_way[:count]])
            for count in range(len(self.under_way) + 1)
        ]
        matching = [expected for expected in possible if expected.matches(journal)]
        assert matching, f"{where}: {journal.recovered}"
        if self.states % 3:
            return
        # It must be usable, and what it showed must be durable now.
        expected = matching[0]
        unit = Persist(0, ballot(1000), None, entries(len(expected.entries) + 1, 1, 1000))
        journal.append([unit])
        expected.take(unit)
        directory.close()
        after = found.after_power_failure()
        again = Journal.open(after, PATH, disk_id=identity.disk_id, segment_bytes=SMALL_BYTES)
        assert expected.matches(again), where

    def crash_while_recovering(self) -> None:
        """The same again for a crash during the recovery from a crash."""
        states = list(islice(self.files.crash_states(self.outcomes), 0, None, 23))
        for disk in states[self.states % 5 :: 5][:3]:

            def crash_again(operation: str, disk: MemoryFiles = disk) -> None:
                for found in disk.crash_states(whole_writes):
                    self.nested += 1
                    self.check(found, f"before {operation} of a recovery")

            disk.before = crash_again
            directory = open_directory(disk, PATH, "shop", "a", DISK)
            Journal.open(disk, PATH, disk_id=directory.identity.disk_id, segment_bytes=SMALL_BYTES)
            disk.before = None

    def append(self, journal: Journal, *units: Persist) -> None:
        self.under_way = list(units)
        journal.append(units)
        self.acknowledged += units
        self.under_way = []


def live(run: Run) -> None:
    """Creation, batches, groups, truncation, rollover, preparation, a large batch, reopening."""
    files = run.files
    directory = open_directory(files, PATH, "shop", "a", DISK)
    run.has_identity = True
    journal = Journal.open(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES)
    run.joining = True
    directory.join(CLUSTER_ID)
    run.joined = True
    one = ballot(1)
    run.append(journal, Persist(1, one))
    run.append(journal, Persist(2, None, None, (configuration(1), *entries(2, 2))))
    run.append(
        journal,
        Persist(3, None, None, entries(4, 2), 1),
        Persist(4, None, None, entries(6, 1), 5),
        Persist(5, ballot(2, "b")),
    )
    run.append(
        journal,
        Persist(6, ballot(3), 6, (*entries(6, 1, 3), configuration(7, 3)), 5),
        Persist(7, None, 7, entries(7, 2, 3), 6),
    )
    run.append(journal, Persist(8, None, None, entries(9, 3, 3, 400), 8))
    while journal.prepare_next():
        pass
    run.append(journal, Persist(9, None, None, entries(12, 3, 3, 400), 11))
    # Two units of which the second needs the next segment.
    run.append(
        journal,
        Persist(10, None, None, entries(15, 1, 3, 300), 11),
        Persist(11, None, None, entries(16, 2, 3, 700), 14),
        Persist(12, ballot(4), 17, entries(17, 1, 4, 20), 14),
    )
    # One that is larger than any segment.
    run.append(journal, Persist(13, None, None, entries(18, 2, 4, 5000), 17))
    run.append(journal, Persist(14, None, 19, (), 18))
    journal.close(18)
    directory.close()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    journal = Journal.open(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES)
    assert journal.recovered.clean
    run.append(journal, Persist(15, ballot(5), 19, entries(19, 2, 5), 18))
    run.append(
        journal,
        Persist(16, ballot(6), 20, entries(20, 2, 6, 30), 19),
        Persist(17, ballot(7), 20, entries(20, 1, 7, 60), 19),
        Persist(18, None, None, (configuration(21, 7), *entries(22, 1, 7)), 20),
    )
    run.append(journal, Persist(19, None, 22), Persist(20, None, None, entries(22, 4, 7, 80), 25))
    run.append(journal, Persist(21, None, None, entries(26, 4, 7, 50), 40))
    journal.close(29)
    directory.close()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "clusterconsensus.storage")  # each torn write is a warning


@pytest.mark.timeout(180)
def test_every_crash_state_shows_everything_acknowledged() -> None:
    run = Run(every_cut)
    live(run)
    run.crash("the end")
    assert run.states >= 10_000
    assert run.torn >= 1_000
    assert run.nested >= 1_000


def test_the_checks_would_notice_a_missing_sync_of_a_directory() -> None:
    run = Run(whole_writes)

    def forget(path: str) -> None:
        del path

    run.files.sync_directory = forget  # type: ignore[method-assign]  # a mutant of the port
    with pytest.raises(AssertionError):
        live(run)


def test_the_checks_would_notice_a_missing_sync_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(whole_writes)
    real = MemoryFile.datasync

    def sync(file: MemoryFile) -> None:
        # The first syncs are those of the identity and of the first segment.
        if file.files is not run.files or not run.acknowledged:
            real(file)

    monkeypatch.setattr(MemoryFile, "datasync", sync)
    with pytest.raises(AssertionError):
        live(run)


def test_what_a_dead_process_left_unsynced_is_made_durable_before_it_is_believed() -> None:
    # The sync fails, the kernel forgets the pages but goes on showing them (W2).
    files = MemoryFiles()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    journal = Journal.open(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES)
    journal.append([Persist(1, ballot(1), None, entries(1, 2))])
    files.fail = lambda operation: (
        OSError(5, "input/output error") if operation == "datasync" else None
    )
    with pytest.raises(Exception, match="input/output error"):
        journal.append([Persist(2, None, None, entries(3, 2))])
    directory.close()
    files.after_process_crash()
    again = Journal.open(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES)
    assert again.recovered.last_seq == 4
    after = files.after_power_failure()
    last = Journal.open(after, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES)
    assert read_all(last) == list(entries(1, 4))
