"""The command lines of ``snapshot`` and ``recover``; what they do is in ``backup``."""

from __future__ import annotations

import argparse
import re
from typing import TypeVar

ParserT = TypeVar("ParserT", bound=argparse.ArgumentParser)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

STATUSES = (
    "Exit status: 0 done; 1 the input is damaged; 2 wrong options, or it is refused: what is to be "
    "read is missing or not ours, what is to be written exists; {three}4 no space, or the disk "
    "failed; 130 Ctrl-C. Unless it is 0, nothing was written."
)


def name(text: str) -> str:
    """A type for argparse: the name of a cluster or a member."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"must be 1 to 64 letters, digits, '.', '_' or '-', not {text!r}"
        )
    return text


def address(text: str) -> str:
    """A type for argparse: ``host:port``."""
    from clusterconsensus.errors import TransportError
    from clusterconsensus.transport.address import parse_address

    try:
        parse_address(text)
    except TransportError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_snapshot(commands: argparse._SubParsersAction[ParserT]) -> None:
    """``snapshot save``, ``snapshot inspect`` and ``snapshot restore``."""
    snapshot = commands.add_parser(
        "snapshot",
        allow_abbrev=False,
        help="backups: save, inspect, restore",
        description="Save the state and the log of a member to one file, look at such a file, and "
        "begin a new cluster with it.",
        epilog=STATUSES.format(three=""),
    )
    actions = snapshot.add_subparsers(dest="action", metavar="ACTION", required=True)
    save = actions.add_parser(
        "save",
        allow_abbrev=False,
        help="write a backup of a member's directory",
        description="Write everything that a member knows to be chosen to one file: its newest "
        "snapshot and the log behind it. The member may run; its directory is only read. A running "
        "member notes what is chosen a moment later, so the latest changes may be missing; a "
        "linearizable read on it and then Participant.snapshot() leave none out that was "
        "acknowledged before.",
        epilog=STATUSES.format(three=""),
    )
    save.add_argument("directory", metavar="DIRECTORY", help="a member's directory")
    save.add_argument("file", metavar="FILE", help="the backup; must not exist")
    inspect = actions.add_parser(
        "inspect",
        allow_abbrev=False,
        help="verify a backup or a .snap file",
        description="Read and verify a whole backup, or a snapshot file of a member's directory.",
        epilog=STATUSES.format(three=""),
    )
    inspect.add_argument("file", metavar="FILE", help="a backup, or a .snap file")
    restore = actions.add_parser(
        "restore",
        allow_abbrev=False,
        help="make the directory of a new cluster from a backup",
        description="Make a new directory from a backup: of a new cluster, whose only voter is the "
        "member named here. Start it, and add other members to it. The members of the old cluster "
        "do not belong to it.",
        epilog=STATUSES.format(three=""),
    )
    restore.add_argument("file", metavar="FILE", help="a backup, or a .snap file")
    restore.add_argument("directory", metavar="DIRECTORY", help="to be made; or an empty one")
    _add_member(restore)
    for parser in (save, inspect, restore):
        _add_json(parser)


def add_recover(commands: argparse._SubParsersAction[ParserT]) -> None:
    """``recover``."""
    recover = commands.add_parser(
        "recover",
        allow_abbrev=False,
        help="a majority is gone for good: go on with what one member has, and lose the rest",
        description="Only for when the majority of a cluster is gone for good. Makes the directory "
        "of a new cluster from what one stopped member has, damaged or not. Changes that were "
        "acknowledged may be lost, and what this member has may never have been chosen. Without "
        "--accept-loss nothing is done but to say what is known of this.",
        epilog=STATUSES.format(three="3 --accept-loss is missing, nothing was done; "),
    )
    recover.add_argument("directory", metavar="DIRECTORY", help="a stopped member's directory")
    recover.add_argument("target", metavar="NEW_DIRECTORY", help="to be made; or an empty one")
    _add_member(recover)
    recover.add_argument(
        "--accept-loss", action="store_true", help="do it: what is lost by it is lost for good"
    )
    _add_json(recover)


def _add_member(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster", type=name, required=True, metavar="NAME", help="the new cluster's name"
    )
    parser.add_argument(
        "--member", type=name, required=True, metavar="ID", help="the id of its only member"
    )
    parser.add_argument(
        "--address",
        type=address,
        required=True,
        metavar="HOST:PORT",
        help="where others will reach it",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
