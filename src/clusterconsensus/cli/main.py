"""Reads the command line and hands over to a subcommand.

Each subcommand is imported only when it is asked for, so that ``--version`` and a wrong option are
answered at once, and so that each works without what only the others need.

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
from clusterconsensus.cli.backup_options import add_recover, add_snapshot

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


def seconds_between(lowest: float, highest: float, unit: str = "seconds") -> Callable[[str], float]:
    """A type for argparse: a time in seconds (or minutes) between two bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not lowest <= number <= highest:  # false for "nan" too
            raise argparse.ArgumentTypeError(
                f"must be a number of {unit} from {lowest:g} to {highest:g}, not {text!r}"
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
    add_snapshot(commands)
    add_recover(commands)
    simulate = commands.add_parser(
        "simulate",
        allow_abbrev=False,
        help="whole clusters on virtual time, with every fault there is",
        description="Run simulated clusters, one for each seed: the real code, on virtual time, a "
        "simulated network and simulated disks. A seed draws what goes wrong; afterwards all is "
        "healed, and everything that was promised is checked. The same seed does the same for "
        "ever.",
        epilog="Exit status: 0 nothing is wrong; 1 a promise was broken (safety); 2 wrong options; "
        "3 what had to happen did not (liveness); 4 the code failed; 5 a rare path was never "
        "reached, so the run proves less than it should; 130 Ctrl-C.",
    )
    _add_simulate(simulate)
    explore = commands.add_parser(
        "explore",
        allow_abbrev=False,
        help="every interleaving of a small cluster",
        description="Go through every order in which messages, writes, crashes and elections of a "
        "small cluster of real cores can come, within the bounds, and check every state.",
        epilog="Exit status: 0 no state is wrong; 1 one is; 2 wrong options; 130 Ctrl-C.",
    )
    _add_explore(explore)
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


def _names(text: str) -> tuple[str, ...]:
    """A type for argparse: names with commas between them; ``none`` is none of them."""
    return () if text == "none" else tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    """A type for argparse: numbers with commas between them; ``none`` is none of them."""
    if not all(name.isdecimal() for name in _names(text)):
        raise argparse.ArgumentTypeError(f"must be numbers such as 2,5 or none, not {text!r}")
    return tuple(map(int, _names(text)))


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    seeds = parser.add_argument_group("which seeds")
    seed_number = whole_number(0, 2**63 - 1)
    seeds.add_argument(
        "--seeds", type=whole_number(1, 10**9), metavar="N", help="how many (default 100)"
    )
    seeds.add_argument(
        "--first-seed", type=seed_number, metavar="N", help="the first of them (default 0)"
    )
    seeds.add_argument("--seed", type=seed_number, metavar="N", help="only this one, told in full")
    seeds.add_argument(
        "--minutes",
        type=seconds_between(0.01, 100_000, "minutes"),
        metavar="M",
        help="new seeds, until so much real time is over",
    )
    what = parser.add_argument_group("what a seed does (whatever is not said is drawn)")
    what.add_argument("--members", type=whole_number(1, 7), metavar="N", help="voters, 1 to 7")
    what.add_argument(
        "--seconds",
        type=seconds_between(0.5, 3600),
        metavar="S",
        help="simulated seconds of trouble",
    )
    what.add_argument(
        "--faults", type=_names, metavar="A,B", help="kinds of faults by name, or none, or all"
    )
    what.add_argument(
        "--workload",
        metavar="NAME",
        help="map, counter, bank or queue; with --state the function that makes changes, as "
        "package.module:function",
    )
    what.add_argument(
        "--state",
        metavar="NAME",
        help="your own state machine, as package.module:Factory; it is examined first",
    )
    what.add_argument(
        "--actions",
        type=_numbers,
        metavar="N,N",
        help="with --seed: of its plan only these actions, or none",
    )
    what.add_argument(
        "--until",
        type=seconds_between(0.01, 3600),
        metavar="S",
        help="with --seed: heal after so many seconds though the plan goes on",
    )
    what.add_argument("--mutant", metavar="NAME", help="with this deliberate bug")
    what.add_argument(
        "--story", metavar="FILE", help="no seed, but this story (a file, or the name of one)"
    )
    how = parser.add_argument_group("how it is run and told")
    how.add_argument(
        "--jobs",
        type=whole_number(1, 256),
        metavar="N",
        help="processes (default: as many as there are cores)",
    )
    how.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    how.add_argument(
        "--require-rare",
        action=argparse.BooleanOptionalAction,
        help="fail if a rare path was never reached (default: from 200 seeds on, with --minutes "
        "from 1000)",
    )
    how.add_argument(
        "--report",
        metavar="FILE",
        help="write a page (HTML) that draws the failure, or the run of --seed",
    )
    how.add_argument("--verbose", action="store_true", help="with --seed: its whole log")
    how.add_argument("--json", action="store_true", help="one JSON object a line, for each seed")
    lists = parser.add_argument_group("what there is")
    lists.add_argument("--list-faults", action="store_true", help="name all kinds of faults")
    lists.add_argument("--list-mutants", action="store_true", help="name all deliberate bugs")
    parser.set_defaults(refuse=parser.error)


def _add_explore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--members", type=whole_number(1, 7), default=3, metavar="N", help="voters (default 3)"
    )
    for name, default, text in (
        ("ballots", 2, "how often a member stands for election"),
        ("changes", 2, "how many changes are submitted"),
        ("crashes", 1, "how often a member crashes and starts again"),
        ("hangs", 1, "how often a disk lets its writes wait"),
        ("losses", 1, "how many messages are lost"),
        ("repeats", 1, "how many messages arrive twice"),
        ("ticks", 1, "how often a master looks at its clock"),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole_number(0, 15),
            default=default,
            metavar="N",
            help=f"{text} (default {default})",
        )
    parser.add_argument("--reorder", action="store_true", help="messages overtake each other")
    parser.add_argument(
        "--states",
        type=whole_number(1, 10**9),
        default=200_000,
        metavar="N",
        help="stop after so many (default 200000)",
    )
    parser.add_argument("--mutant", metavar="NAME", help="with this deliberate bug")
    parser.add_argument(
        "--story", metavar="FILE", help="write the way to what is wrong, as simulate --story has it"
    )
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
    parser.set_defaults(refuse=parser.error)


def _run(options: argparse.Namespace) -> int:
    if options.command == "inspect":
        from clusterconsensus.cli import inspect

        return inspect.run(options.directory, options.json, options.entries)
    if options.command in ("snapshot", "recover"):
        from clusterconsensus.cli import backup

        return backup.run(options)
    if options.command == "simulate":
        from clusterconsensus.cli import simulate

        return simulate.run(options)
    if options.command == "explore":
        from clusterconsensus.cli import explore

        return explore.run(options)
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
