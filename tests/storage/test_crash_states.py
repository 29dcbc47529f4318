"""A power failure at every file operation: whatever it leaves, everything acknowledged is there.

The check itself is a part of the product (``simulation.journals``); here it is run, and shown to
notice what it is for.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.errors import StoragePoisonedError
from clusterconsensus.simulation.journals import checks as journals
from clusterconsensus.simulation.journals.checks import check_crash_states
from clusterconsensus.simulation.journals.lives import DisprovedError, Life, live
from clusterconsensus.simulation.journals.power import crash_states, whole_writes
from clusterconsensus.simulation.world.content import Image
from clusterconsensus.simulation.world.disk import Disk, DiskFile
from clusterconsensus.storage.extent import Openings
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.records import HEADER_BYTES
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.segments import segment_path
from tests.storage.model import (
    DISK,
    PATH,
    SMALL_BYTES,
    after_power_failure,
    ballot,
    entries,
    failing,
    make_directory,
    open_journal,
    read_all,
)


@pytest.mark.timeout(180)
def test_every_crash_state_shows_everything_acknowledged() -> None:
    progress: list[int] = []
    report = check_crash_states(10_000, progress.append)
    assert report.failure == ""
    assert report.counts["states"] >= 10_000
    assert report.counts["torn writes"] >= 1_000
    assert report.counts["interrupted recoveries"] >= 1_000
    assert report.counts["lives"] == 2
    assert len(progress) >= 20
    assert progress == sorted(progress)


def live_quickly(number: int) -> Life:
    """Life ``number``, with writes that are kept, lost or cut in the middle."""
    life = Life(whole_writes)
    live(life, number)
    return life


def test_drawn_lives_show_everything_acknowledged() -> None:
    lives = [live_quickly(number) for number in range(2, 14)]
    assert sum(life.deaths for life in lives) >= 20
    assert sum(life.torn for life in lives) >= 100
    assert min(life.states for life in lives) >= 100


def test_the_report_tells_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "every_cut", whole_writes)
    monkeypatch.setattr(Scan, "_witness", lambda *_: "taken for damage whatever it is")
    report = check_crash_states(300)
    assert report.failure.startswith("life 0: DisprovedError: state ")
    assert "DamagedError" in report.failure
    assert report.counts["lives"] == 1
    assert "FAILED" in str(report)
    monkeypatch.undo()
    monkeypatch.setattr(journals, "every_cut", whole_writes)
    report = check_crash_states(300, first_life=5)
    assert report.failure == ""
    assert report.counts["lives"] == 2
    assert "states" in str(report)
    assert report == check_crash_states(300, first_life=5)


def forget_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "sync_directory", lambda disk, path: None)


def forget_data(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DiskFile.datasync
    # Not those of identity and segments: what is forgotten is what was appended.
    monkeypatch.setattr(
        DiskFile, "datasync", lambda file: None if file._path.endswith(".log") else real(file)
    )


def believe_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last process left unsynced is not written again (W2)."""
    real = Journal._settle

    def settle(journal: Journal, scan: Scan) -> None:
        if scan.segments:
            scan.group = scan.segments[scan.tail].used_bytes
        real(journal, scan)

    monkeypatch.setattr(Journal, "_settle", settle)


def leave_what_was_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a torn write stays behind the log, and may fit to what comes."""
    real = Journal._settle

    def settle(journal: Journal, scan: Scan) -> None:
        scan.torn = None
        real(journal, scan)

    monkeypatch.setattr(Journal, "_settle", settle)


def take_torn_writes_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scan, "_witness", lambda *_: "it is damage")


def remove_without_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removals may come through in any order, and leave a gap."""
    real = Journal.compact

    def compact(journal: Journal, seq: int) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(Disk, "sync_directory", lambda disk, path: None)
            return real(journal, seq)

    monkeypatch.setattr(Journal, "compact", compact)


def begin_where_the_log_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Openings, "cut", lambda openings, seq: None)


@pytest.mark.parametrize(
    "mutant",
    [
        remove_without_syncing,
        begin_where_the_log_was_cut_off,
        forget_directories,
        forget_data,
        believe_the_cache,
        leave_what_was_torn,
        take_torn_writes_for_damage,
    ],
)
def test_the_checks_would_notice(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(DisprovedError):
        [live_quickly(number) for number in range(24)]


def test_what_a_dead_process_left_unsynced_is_made_durable_before_it_is_believed() -> None:
    # The sync fails, the kernel forgets the pages but goes on showing them (W2).
    files = Disk()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    journal = Journal.open(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES)
    journal.append([Persist(1, ballot(1), None, entries(1, 2))])
    files.before = failing("datasync", OSError(5, "input/output error"))
    with pytest.raises(StoragePoisonedError, match="input/output error"):
        journal.append([Persist(2, None, None, entries(3, 2))])
    directory.close()
    files.after_process_crash()
    again = open_journal(files)
    assert again.recovered.last_seq == 4
    assert read_all(open_journal(after_power_failure(files))) == list(entries(1, 4))


def test_zeros_that_only_the_cache_holds_hide_nothing() -> None:
    """The first write to the second segment was torn; the sync that should have erased it failed,
    and what is left of it is seen again only after a power failure."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, entries(1, 1, 1, 1500))])
    while journal.prepare_next():
        pass
    image = files.snapshot_image()
    second = segment_path(PATH, 2)
    torn = image.files[second][:HEADER_BYTES] + b"torn".ljust(SMALL_BYTES - HEADER_BYTES, b"\0")
    files = Disk(Image(image.directories, {**image.files, second: torn}))
    files.fail_next("datasync", OSError(5, "input/output error"))
    with pytest.raises(StoragePoisonedError):
        open_journal(files)
    files.after_process_crash()
    journal = open_journal(files)
    assert journal.recovered.torn is None, "it has been erased, to all appearances"
    opened = []

    def before(operation: str, path: str) -> None:
        for found in crash_states(files, whole_writes):
            opened.append(open_journal(Disk(found)).recovered.last_seq)

    files.before = before
    journal.append([Persist(2, None, None, entries(2, 1))])
    assert {1, 2} == set(opened)
