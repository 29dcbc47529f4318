"""Reads the command line and hands over to a subcommand.

Each subcommand is imported only when it is asked for, so that ``--version`` and a wrong option are
answered at once, and so that ``inspect`` works without what only the demonstration needs.

The exit status is 2 for a command line that makes no sense, 130 after Ctrl-C, and otherwise what
the subcommand says.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from clusterconsensus import __version__

MIN_MEMBERS, MAX_MEMBERS = 1, 9
MIN_SECONDS, MAX_SECONDS = 3.0, 600.0
DEFAULT_SECONDS = 24.0

WRONG_OPTIONS = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong, instead of printing the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_OPTIONS, f"{self.prog}: {message} (--help tells the options)\n")


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """A type for argparse: a whole number between two bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {lowest} to {highest}, not {text!r}"
            )
        return number

    return parse


def seconds_between(lowest: float, highest: float) -> Callable[[str], float]:
    """A type for argparse: a time in seconds between two bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not lowest <= number <= highest:  # false for "nan" too
            raise argparse.ArgumentTypeError(
                f"must be a number of seconds from {lowest:g} to {highest:g}, not {text!r}"
            )
        return number

    return parse


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = OneLineParser(
        prog="clusterconsensus",
        description="One state machine, kept identical on several hosts.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clusterconsensus {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="a real cluster on this machine, killed again and again",
        description="Start a cluster of real processes on this machine, move money between the "
        "accounts of a small bank, kill the master again and again, and prove from the writers' "
        "own records that no acknowledged transfer was lost or done twice.",
        epilog="Exit status: 0 nothing was lost or done twice; 1 something was; 2 wrong options; "
        "3 the demonstration could not run to its end; 130 Ctrl-C.",
    )
    _add_demo(demo)
    inspect = commands.add_parser(
        "inspect",
        allow_abbrev=False,
        help="read and verify a member's directory, off line",
        description="Read and verify the directory of a member that is not running.",
    )
    _add_inspect(inspect)
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--members",
        type=whole_number(MIN_MEMBERS, MAX_MEMBERS),
        default=3,
        metavar="N",
        help=f"member processes, {MIN_MEMBERS} to {MAX_MEMBERS} (default 3)",
    )
    parser.add_argument(
        "--seconds",
        type=seconds_between(MIN_SECONDS, MAX_SECONDS),
        default=DEFAULT_SECONDS,
        metavar="S",
        help="how long to write and to kill; start and check come on top "
        f"(default {DEFAULT_SECONDS:g})",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**63 - 1),
        metavar="N",
        help="choose transfers and faults by this number (default: another one each time)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the members' directories and say where they are (they are kept anyway "
        "when something was lost)",
    )
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
    # For tests: members break the promise of durability, and the check must notice.
    parser.add_argument("--unsafe-acknowledge-early", action="store_true", help=argparse.SUPPRESS)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIRECTORY", help="a member's directory")
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
    parser.add_argument("--entries", action="store_true", help="list every entry of the log")


def _run(options: argparse.Namespace) -> int:
    if options.command == "inspect":
        from clusterconsensus.cli import inspect

        return inspect.run(options.directory, options.json, options.entries)
    from clusterconsensus.cli import demo

    return demo.run(
        demo.Options(
            members=options.members,
            seconds=options.seconds,
            seed=options.seed,
            keep=options.keep,
            as_json=options.json,
            unsafe_acknowledge_early=options.unsafe_acknowledge_early,
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Arguments:
        arguments: The command line behind the program's name; None takes it from ``sys.argv``.

    Returns:
        The exit status.

    Raises:
        SystemExit: after ``--help`` and ``--version``, and with status 2 for wrong options.
    """
    options = build_parser().parse_args(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Without this, Python would complain once more when it
        # flushes the standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
