"""Mutants of storage: what is said before it is durable, and damage that is believed."""

from __future__ import annotations

from clusterconsensus.simulation.mutants.table import Mutant, edited, table
from clusterconsensus.storage import identity, index, planning
from clusterconsensus.storage.index import Index
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.segments import Making

MUTANTS = table(
    Mutant(
        "journal-not-synced",
        "a write of the journal counts as durable without a sync",
        ("I-21", "W2"),
        edited(Journal, "_write", ("self._file.datasync()", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "segment-not-synced",
        "a segment is used before its header and its zeros are on the disk",
        ("I-21", "D8"),
        edited(Making, "_advance", ("file.datasync()", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "segment-name-not-synced",
        "a segment is renamed, and its directory not synced (C-6)",
        ("I-21", "D8"),
        edited(Making, "_advance", ("files.sync_directory(self._directory)", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "segment-under-its-own-name",
        "a segment gets its name before it is whole",
        ("I-21", "D8"),
        edited(
            Making,
            "_advance",
            ('f"{self._path}.new"', "self._path"),
            ("files.rename(temporary, self._path)", "pass"),
        ),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "identity-not-synced",
        "the identity is renamed into its place before its content is on the disk",
        ("I-21", "D9"),
        edited(identity, "_write", ("target.datasync()", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "identity-name-not-synced",
        "the identity is renamed, and its directory not synced: a member forgets its disk's id",
        ("I-21", "D9"),
        edited(identity, "_write", ("files.sync_directory(path)", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "sync-error-is-retried",
        "a sync that failed is tried again, and its success is believed (C-5)",
        ("I-21", "W2"),
        edited(
            Journal,
            "_write",
            (
                "        self._file.datasync()\n",
                "        try:\n"
                "            self._file.datasync()\n"
                "        except OSError:\n"
                "            self._file.datasync()\n",
            ),
        ),
        "I-21",
        lives=range(13, 14),
    ),
    Mutant(
        "poison-is-forgotten",
        "after a failed write the journal goes on as if nothing had happened",
        ("I-21", "W2"),
        edited(
            Journal,
            "_poisoned",
            ("self._poison = self._poison or detail", "pass"),
            ("StoragePoisonedError(self._poison)", "StoragePoisonedError(detail)"),
        ),
        "W2",
        drill="failing sync",
    ),
    Mutant(
        "damage-is-cut-off",
        "the log is cut off at the first bad checksum, acknowledged entries with it (C-57)",
        ("I-21", "W3", "W4"),
        edited(Scan, "_segment", ("if witness:", "if False:")),
        "W3",
        drill="flips",
    ),
    Mutant(
        "torn-write-is-damage",
        "a write that a crash tore is taken for damage: the member does not start",
        ("I-21", "W3"),
        edited(Scan, "_segment", ("if witness:", "if True:")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "torn-write-stays",
        "the rest of a torn write is not erased, and stands behind what is written next",
        ("I-21", "W3"),
        edited(Journal, "_settle", ("file.pwrite(memoryview(ZEROS)[:count], offset)", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "last-write-is-believed",
        "what a dead process wrote is believed without being made durable first",
        ("I-21", "W2", "W7"),
        edited(
            Journal,
            "_settle",
            ("file.pwrite(files.read(tail.path, offset, count), offset)", "pass"),
        ),
        "I-21",
        lives=range(13, 14),
    ),
    Mutant(
        "checksum-not-checked",
        "the checksum of a record is read and not compared",
        ("W1", "I-21"),
        edited(index, "parse", (") != crc:", ") == -1:")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "cut-not-written",
        "that the log was cut off is not written",
        ("I-21", "I-3"),
        edited(planning, "_encode", ("encoder.truncate(batch.truncate_from)", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "promise-not-written",
        "a promise is not written with its batch",
        ("I-21", "I-5"),
        edited(planning, "_encode", ("encoder.promise(promised)", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "cut-keeps-ballots",
        "recovery knows which ballots entries had that were cut off",
        ("I-21", "I-3"),
        edited(Scan, "_take", ("while runs and runs[-1][0] >= seq:", "while False:")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "cut-keeps-index",
        "the index finds entries that were cut off",
        ("I-21", "I-3"),
        edited(Index, "truncate", ("self._forced = True", "pass")),
        "I-21",
        lives=range(10),
    ),
    Mutant(
        "hint-ahead-of-the-log",
        "a commit hint beyond the end of the log is written (C-7)",
        ("I-21", "W3"),
        edited(
            planning,
            "_encode",
            (
                "commit = max(commit, min(batch.commit, last_seq))",
                "commit = max(commit, batch.commit)",
            ),
        ),
        "I-21",
        lives=range(10),
    ),
)
