"""``clusterconsensus inspect DIRECTORY``: what a member's directory holds, and whether it is whole.

Nothing is written and no lock is taken, so a directory in use may be looked at too.
"""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clusterconsensus.consensus.types import Incarnation, member_id_of
from clusterconsensus.errors import StorageError
from clusterconsensus.storage.inspect import (
    DAMAGED,
    FOREIGN,
    TORN,
    Report,
    inspect,
    kind_name,
)
from clusterconsensus.storage.inspect import entries as log_entries

WHOLE_STATUS = 0
DAMAGED_STATUS = 1
FOREIGN_STATUS = 2
LATEST = 20
"""How many ballots and configurations are shown; ``--json`` has them all."""


def run(directory: str, as_json: bool, entries: bool) -> int:
    """Inspect a directory and print what was found.

    Arguments:
        directory: Its path.
        as_json: Print one JSON object (and one per entry, each on a line) for programs.
        entries: List every entry of the log as well.

    Returns:
        The exit status: 0 whole (a torn, never acknowledged write included), 1 damaged, 2 not a
        directory of ours.
    """
    report = inspect(directory)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print(Console(highlight=False), report)
    if entries and report.verdict != FOREIGN:
        _print_entries(directory, as_json)
    return {DAMAGED: DAMAGED_STATUS, FOREIGN: FOREIGN_STATUS}.get(report.verdict, WHOLE_STATUS)


def _print(console: Console, report: Report) -> None:
    verdict = {DAMAGED: "bold red", FOREIGN: "bold red", TORN: "bold yellow"}
    style = verdict.get(report.verdict, "bold green")
    console.print(
        f"[bold]{escape(report.directory)}[/]: [{style}]{report.verdict}[/]", soft_wrap=True
    )
    for damage in report.damage:
        console.print(f"  [red]{escape(damage)}[/]", soft_wrap=True)
    if report.verdict == FOREIGN:
        return
    if report.torn:
        console.print(f"  {escape(report.torn)}; it was never acknowledged", soft_wrap=True)
    if report.in_use_by:
        console.print(f"  in use by process {escape(report.in_use_by)}: a picture of this moment")
    facts = Table.grid(padding=(0, 2))
    identity = report.identity
    if identity is not None:
        cluster_id = identity.cluster_id or "none yet"
        founder = ", founded here" if identity.founder else ""
        facts.add_row("member", escape(identity.member_id))
        facts.add_row("cluster", escape(f"{identity.cluster} ({cluster_id}{founder})"))
        facts.add_row("disk", escape(identity.disk_id))
    facts.add_row("promised", _ballot(report.promised_instance, report.promised_owner))
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.entries.items())
    if report.recovering:
        facts.add_row("recovering", "[yellow]yes: it was damaged, and does not vote[/]")
    facts.add_row(
        "log", f"{report.first_seq} to {report.last_seq}" if report.first_seq else "empty"
    )
    if report.base_seq:
        ballot = _ballot(report.base_instance, report.base_owner)
        facts.add_row("before it, in a snapshot", f"up to {report.base_seq}, ballot {ballot}")
    facts.add_row("entries", f"{kinds or 'none'}; {report.payload_bytes:,} bytes of payload")
    facts.add_row("chosen at least to", str(report.commit_hint))
    facts.add_row("closed in good order", "yes" if report.closed_cleanly else "no")
    if report.set_aside:
        facts.add_row("set aside, damaged", escape(", ".join(report.set_aside)))
    for snapshot in report.snapshots:
        state = "[red]damaged[/]" if snapshot.damage else "whole"
        ballot = _ballot(snapshot.instance, snapshot.owner)
        facts.add_row(
            "snapshot",
            f"up to {snapshot.seq}, ballot {ballot}, {snapshot.size_bytes:,} bytes, {state}",
        )
    console.print(facts)
    table = Table("segment", "bytes", "used", "batches", "entries", "first", "last")
    for segment in report.segments:
        table.add_row(
            escape(segment.name),
            f"{segment.size_bytes:,}",
            f"{segment.used_bytes:,}",
            str(segment.batches),
            str(segment.entries),
            str(segment.first_seq or "-"),
            str(segment.last_seq or "-"),
        )
    console.print(table)
    ballots = [
        f"{ballot.first_seq}: {_ballot(ballot.instance, ballot.owner)}" for ballot in report.ballots
    ]
    _print_latest(console, "ballots by first sequence", ballots)
    configurations = [
        f"{found.seq}: {escape(', '.join(found.members))}" for found in report.configurations
    ]
    _print_latest(console, "configurations by sequence", configurations)


def _print_latest(console: Console, title: str, lines: list[str]) -> None:
    if not lines:
        return
    console.print(f"[bold]{title}[/]")
    if len(lines) > LATEST:
        console.print(f"  ({len(lines) - LATEST} earlier ones)")
    for line in lines[-LATEST:]:
        console.print(f"  {line}", soft_wrap=True)


def _ballot(instance: int, owner: str) -> str:
    if not owner:
        return "nothing"
    return escape(f"{instance} of {member_id_of(Incarnation(owner))}")


def _print_entries(directory: str, as_json: bool) -> None:
    try:
        for entry in log_entries(directory):
            kind = kind_name(entry.kind)
            if as_json:
                fields = {
                    "seq": entry.seq,
                    "instance": entry.ballot.instance,
                    "owner": entry.ballot.owner,
                    "kind": kind,
                    "time": entry.time,
                    "bytes": len(entry.payload),
                    "crc": entry.crc,
                }
                sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
            else:
                sys.stdout.write(
                    f"{entry.seq:>10}  {entry.ballot!s:<16}  {kind:<8}  "
                    f"{entry.time:.3f}  {len(entry.payload):>9} bytes\n"
                )
    except StorageError as error:
        sys.stdout.write(f"{error}\n" if not as_json else "")
