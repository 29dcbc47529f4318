"""A member of a replicated key-value store, which obeys commands from its standard input.

::

    python examples/store.py --id a --listen 127.0.0.1:7001 --directory var/a --found
    python examples/store.py --id b --listen 127.0.0.1:7002 --directory var/b --join 127.0.0.1:7001

Each command is a line and gets one line as its answer; ``store_commands`` has them all, and
``docs/operations.md`` tells when to use which. ``--found`` and ``--join`` say how a *fresh*
directory comes into a cluster; one that has belonged to a cluster rejoins it by itself, so the same
command line starts a member for ever. The end of the input, ``quit``, SIGTERM and SIGINT end it in
good order.

Exit status: 0 ended in good order; 1 trouble ended it, or it could not start; 2 wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import msgspec
from store_commands import Commands
from store_state import Store

from clusterconsensus import (
    ConsensusError,
    DirectoryNotEmptyError,
    Member,
    Participant,
    Settings,
    SettingsError,
    TcpTransport,
)

LINES = 64
"""Commands that wait; a writer that is quicker than that waits too."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A member of a replicated key-value store.")
    parser.add_argument("--id", required=True, help="this member's id: a short name of your choice")
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="where the others reach this member"
    )
    parser.add_argument("--directory", required=True, help="where its journal and snapshots live")
    parser.add_argument("--cluster", default="shop", metavar="NAME", help="default: shop")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--found", action="store_true", help="a fresh directory founds a new cluster")
    how.add_argument(
        "--join", metavar="HOST:PORT", help="a fresh directory joins the cluster of that member"
    )
    parser.add_argument(
        "--learner", action="store_true", help="with --join: follow, without a vote"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="for example lease_reads=true; may be repeated",
    )
    parser.add_argument("--log", default="WARNING", metavar="LEVEL", help="default: WARNING")
    return parser.parse_args(arguments)


def settings_of(texts: list[str]) -> Settings:
    """Settings from ``name=value`` texts.

    Raises:
        SettingsError: there is no such setting, or its value is of another type.
    """
    fields: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in Settings.__struct_fields__:
            raise SettingsError(f"no such setting: {text!r}")
        fields[name] = value
    try:
        return msgspec.convert(fields, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from error


def say(line: str) -> None:
    """Print one line at once. Whoever read us may be gone: then we end when our input does."""
    with contextlib.suppress(BrokenPipeError):
        print(line.replace("\n", " "), flush=True)


def read_lines(queue: asyncio.Queue[str | None]) -> None:
    """Put each line of the standard input into a queue, and None behind the last.

    A thread of its own reads them, since not everything that can be a standard input can be waited
    for by an event loop (a file cannot); by ``os.read``, since a thread that waits inside of
    ``sys.stdin`` disturbs the end of the interpreter.
    """
    loop = asyncio.get_running_loop()

    def put(line: str | None) -> None:
        putting = queue.put(line)
        try:
            asyncio.run_coroutine_threadsafe(
                putting, loop
            ).result()  # waits while the queue is full
        except (RuntimeError, CancelledError):
            putting.close()  # the loop has ended

    def read() -> None:
        rest = b""
        while data := os.read(0, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                put(line.decode(errors="replace"))
        put(rest.decode(errors="replace"))
        put(None)

    threading.Thread(target=read, daemon=True).start()


async def come_in(store: Participant[Store], options: argparse.Namespace) -> None:
    """Bring a fresh directory into a cluster, asking again where that may help; then wait for ever.

    Raises:
        ConsensusError: it cannot, and will not.
    """
    if options.found:
        with contextlib.suppress(DirectoryNotEmptyError):  # an earlier start has founded it
            await store.init_master()
            say("founded")
    elif options.join and not store.status().cluster_id:
        while True:
            try:
                await store.join(options.join, learner=options.learner)
            except ConsensusError as error:
                if not error.retryable:
                    raise
                say(f"error {error.code}: {error}")
            else:
                say("joined")
                break
    await asyncio.Event().wait()


async def obey(store: Participant[Store], queue: asyncio.Queue[str | None]) -> None:
    """Obey commands, one after another, until there are no more."""
    commands = Commands(store, say)
    try:
        while (line := await queue.get()) is not None:
            if not await commands.obey(line):
                return
    finally:
        commands.close()


async def serve(options: argparse.Namespace) -> None:
    """Run the member until it is told to end, or trouble ends it.

    Raises:
        ConsensusError: it cannot start, or trouble ended it.
    """
    settings = settings_of(options.set)
    member = Member(options.id, options.listen)
    Path(options.directory).parent.mkdir(parents=True, exist_ok=True)
    queue: asyncio.Queue[str | None] = asyncio.Queue(LINES)
    async with Participant(
        cluster=options.cluster,
        member=member,
        state=Store(),
        directory=options.directory,
        transport=TcpTransport(member.address, settings=settings),
        settings=settings,
    ) as store:
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        say(f"{member.id} listens on {member.address}")

        read_lines(queue)
        tasks = [
            asyncio.create_task(come_in(store, options)),
            asyncio.create_task(obey(store, queue)),
            asyncio.create_task(store.wait_closed()),
            asyncio.create_task(ended.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    say(f"{member.id} ended")


def main() -> int:
    """Run the program; returns its exit status."""
    options = parse()
    logging.basicConfig(level=options.log.upper(), format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(serve(options))
    except ConsensusError as error:
        sys.stderr.write(f"error {error.code}: {error}\n")
        return 2 if isinstance(error, SettingsError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
