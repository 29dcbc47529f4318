"""``clusterconsensus snapshot`` and ``clusterconsensus recover``: backups, and the last resort.

Works with nothing but files, and without ``rich``: whoever needs this has trouble enough. What goes
wrong is one sentence on standard error, and then nothing was written.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from datetime import UTC, datetime

import msgspec

from clusterconsensus.consensus.types import Incarnation, Member, member_id_of
from clusterconsensus.errors import (
    ConsensusError,
    DamagedError,
    DiskFullError,
    StoragePoisonedError,
)
from clusterconsensus.storage import backup
from clusterconsensus.storage.files import RealFiles

DONE = 0
DAMAGED = 1
REFUSED = 2
NOT_ACCEPTED = 3
DISK_FAILED = 4

_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))

Rows = list[tuple[str, str]]


def run(options: argparse.Namespace) -> int:
    """Do what a command line asks for (``backup_options``).

    Returns:
        The exit status: 0 done, 1 the input is damaged, 2 refused, 3 ``--accept-loss`` is missing,
        4 no space or a failing disk.
    """
    try:
        if options.command == "recover":
            return _recover(options)
        return {"save": _save, "inspect": _inspect, "restore": _restore}[options.action](options)
    except ConsensusError as error:
        sys.stdout.flush()
        sys.stderr.write(f"clusterconsensus: {error}\n")
        if isinstance(error, DamagedError):
            return DAMAGED
        return DISK_FAILED if isinstance(error, DiskFullError | StoragePoisonedError) else REFUSED


def _save(options: argparse.Namespace) -> int:
    report = backup.save(RealFiles(), options.directory, options.file)
    _print(options, report, f"{report.file}: saved and verified", _backup_rows(report))
    return DONE


def _inspect(options: argparse.Namespace) -> int:
    report = backup.inspect_backup(RealFiles(), options.file)
    _print(options, report, f"{report.file}: whole", _backup_rows(report))
    return DONE


def _restore(options: argparse.Namespace) -> int:
    made = backup.restore(
        RealFiles(),
        options.file,
        options.directory,
        cluster=options.cluster,
        member=Member(options.member, options.address),
        cluster_id=_new_id(),
        disk_id=_new_id(),
    )
    _print(options, made, f"{made.directory}: made", _made_rows(made))
    return DONE


def _recover(options: argparse.Namespace) -> int:
    files = RealFiles()
    found = backup.survey(files, options.directory)
    if not options.json:
        _print(options, None, f"{found.directory}: what is left", _survey_rows(found))
    if not options.accept_loss:
        if options.json:
            sys.stdout.write(msgspec.json.encode({"survey": found, "made": None}).decode() + "\n")
        sys.stderr.write(
            "clusterconsensus: nothing was done: --accept-loss is needed, because all of this is "
            "lost for good by it\n"
        )
        return NOT_ACCEPTED
    made = backup.recover(
        files,
        options.directory,
        options.target,
        cluster=options.cluster,
        member=Member(options.member, options.address),
        cluster_id=_new_id(),
        disk_id=_new_id(),
    )
    if options.json:
        sys.stdout.write(msgspec.json.encode({"survey": found, "made": made}).decode() + "\n")
    else:
        _print(options, None, f"{made.directory}: made", _made_rows(made))
    return DONE


def _new_id() -> str:
    return secrets.token_hex(16)


# -- printing


def _print(
    options: argparse.Namespace, found: msgspec.Struct | None, title: str, rows: Rows
) -> None:
    if options.json and found is not None:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    width = max(len(name) for name, _ in rows)
    lines = [title, *(f"  {name:<{width}}  {text}" for name, text in rows)]
    sys.stdout.write("\n".join(lines) + "\n")


def _backup_rows(report: backup.BackupReport) -> Rows:
    snapshot = "none"
    if report.snapshot_seq:
        ballot = _ballot(report.snapshot_instance, report.snapshot_owner)
        snapshot = (
            f"up to {report.snapshot_seq} ({ballot}), {report.state_bytes:,} bytes of state, "
            f"{report.sessions:,} sessions"
        )
    log = "none"
    if report.entries:
        log = f"{report.first_seq} to {report.last_seq}, {report.entry_bytes:,} bytes of payload"
    return [
        ("cluster", f"{report.cluster} ({report.cluster_id or 'no id'})"),
        ("written by", report.member_id),
        ("snapshot", snapshot),
        ("entries", log),
        ("newest change", _moment(report.time)),
        ("members", _members(report.configuration_seq, report.members)),
        ("file", f"{report.size_bytes:,} bytes, checksum {report.crc:08x}"),
    ]


def _made_rows(made: backup.Rebuilt) -> Rows:
    return [
        ("cluster", f"{made.cluster} ({made.cluster_id}), a new one"),
        ("only member", str(made.member)),
        ("holds", f"everything up to {made.last_seq}"),
        ("given up", ", ".join(made.given_up)),
    ]


def _survey_rows(found: backup.Survey) -> Rows:
    behind = found.last_seq - found.snapshot_seq
    whole = f"a snapshot up to {found.snapshot_seq}, and " if found.snapshot_seq else ""
    rows = [
        ("member", f"{found.member_id} of cluster {found.cluster} ({found.cluster_id or 'no id'})"),
        ("recovered", f"up to {found.last_seq}: {whole}{behind:,} entries"),
        ("known to be chosen", f"up to {found.known_seq}"),
    ]
    if found.unknown:
        entries = (
            f"entry {found.last_seq} was chosen; it is kept"
            if found.unknown == 1
            else f"the {found.unknown:,} entries {found.known_seq + 1} to {found.last_seq} were "
            "chosen; they are kept"
        )
        rows.append(("not known", f"whether {entries}"))
    if found.missing_seq:
        rows.append(
            ("lost", f"{found.last_seq + 1} to {found.missing_seq}, which were chosen, and more")
        )
    if found.recovering:
        rows.append(
            (
                "doubtful",
                "this member had been damaged and did not have everything back: what others "
                "acknowledged may be missing anywhere behind its snapshot",
            )
        )
    rows += [("damaged", damage) for damage in found.damage]
    rows += [
        ("newest change", f"{_moment(found.time)}; what was changed later is lost"),
        ("given up", ", ".join(found.given_up)),
        ("", "none of these may ever be started again, nor this directory"),
    ]
    return rows


def _members(seq: int, members: list[str]) -> str:
    return f"{', '.join(members) or 'none'} (since {seq})"


def _ballot(instance: int, owner: str) -> str:
    return f"ballot {instance} of {member_id_of(Incarnation(owner))}"


def _moment(seconds: float) -> str:
    """A replicated time, and how long ago that was."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"at {seconds} seconds since the epoch"
    age = max(0.0, time.time() - seconds)
    for unit, name in _UNITS:
        if age >= 2 * unit or unit == 1.0:
            return f"{moment}, {age / unit:.0f} {name} ago"
    return moment
