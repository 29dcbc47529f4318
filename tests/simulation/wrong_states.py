"""State machines with one defect each, and some without: what the kit is tried on.

All share a workload: ``["put", name, number]`` and ``["take", name]``. A line that ends with
``# here`` is the one that a sentinel must name.
"""

from __future__ import annotations

import collections
import datetime
import json
import logging
import os
import random
import sys
import threading
import time
import uuid
from pathlib import Path
from random import choice
from time import time as now
from typing import Any, ClassVar

from clusterconsensus import Context, MsgpackCodec
from clusterconsensus.state import Readable

LOGGER = logging.getLogger(__name__)
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False

IN_CHILD = sys.argv[0].endswith("child.py")

NAMES = ("apple", "pear", "plum", "quince", "medlar", "sloe")


def workload(chance: random.Random) -> list[Any]:
    name = chance.choice(NAMES)
    return ["put", name, chance.randint(0, 99)] if chance.random() < 0.75 else ["take", name]


def noise(chance: random.Random) -> list[Any]:
    return ["put", chance.choice(NAMES), random.getrandbits(60)]


def set_order(chance: random.Random) -> list[Any]:
    return ["put", *set(NAMES), chance.randint(0, 9)]


def unencodable(chance: random.Random) -> list[Any]:
    return ["put", object()]


class Map:
    """A right one: names and numbers; an unknown name raises and changes nothing."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    def apply(self, change: Any, context: Context) -> Any:
        if change[0] == "put":
            self.items[change[1]] = change[2]
            return len(self.items)
        if change[1] not in self.items:
            raise KeyError(change[1])
        return self.items.pop(change[1])

    def snapshot(self) -> bytes:
        return json.dumps(self.items).encode()

    def install(self, snapshot: Readable) -> None:
        self.items = json.loads(snapshot.read())


class Bank:
    """A right one with chance of its own, replicated time, and a log line for each change."""

    codec = MsgpackCodec(change_type=list[str | int], result_type=list[str | float])

    def __init__(self) -> None:
        self.chance = random.Random(7)
        self.book: list[list[Any]] = []

    def apply(self, change: Any, context: Context) -> Any:
        LOGGER.warning("%s", change)
        day = time.strftime("%Y-%m-%d", time.gmtime(context.time))
        self.book.append([*change, day, self.chance.random()])
        return [f"{context.sequence}.{context.index}", day, self.chance.random()]

    def snapshot(self) -> bytes:
        return json.dumps([self.book, self.chance.getstate()]).encode()

    def install(self, snapshot: Readable) -> None:
        self.book, (version, state, gauss) = json.loads(snapshot.read())
        self.chance.setstate((version, tuple(state), gauss))


# -- answers that differ


class SetOrder(Map):
    def apply(self, change: Any, context: Context) -> Any:
        super().apply(["put", change[1], 0], context)
        return list(set(self.items))


class HashValue(Map):
    def apply(self, change: Any, context: Context) -> Any:
        return hash(change[1])


class Address(Map):
    def apply(self, change: Any, context: Context) -> Any:
        return id(self)


class LocalDay(Map):
    """``fromtimestamp`` asks no clock; it asks the time zone."""

    def apply(self, change: Any, context: Context) -> Any:
        return str(datetime.datetime.fromtimestamp(context.time))


class HiddenClock(Map):
    """A clock that C code calls, where no sentinel can hear it."""

    def apply(self, change: Any, context: Context) -> Any:
        reads: collections.defaultdict[str, float] = collections.defaultdict(now)
        return int(reads["the clock"]) // 86400


class Shared(Map):
    shared: ClassVar[list[str]] = []

    def apply(self, change: Any, context: Context) -> Any:
        self.shared.append(change[1])
        return len(self.shared)


class SetSnapshot(Map):
    """Equal states, snapshots of another order."""

    def snapshot(self) -> bytes:
        return json.dumps([[name, self.items[name]] for name in set(self.items)]).encode()

    def install(self, snapshot: Readable) -> None:
        self.items = dict(json.loads(snapshot.read()))


# -- who asks the world


class Asks(Map):
    def apply(self, change: Any, context: Context) -> Any:
        self.ask()
        return super().apply(change, context)

    def ask(self) -> object:
        raise NotImplementedError


class AsksTime(Asks):
    def ask(self) -> object:
        return time.time()  # here


class AsksTimeByAnotherName(Asks):
    def ask(self) -> object:
        return now()  # here


class AsksDatetime(Asks):
    def ask(self) -> object:
        return datetime.datetime.now(datetime.UTC)  # here


class AsksToday(Asks):
    def ask(self) -> object:
        return datetime.date.today()  # here


class AsksRandom(Asks):
    def ask(self) -> object:
        return random.random()  # here


class AsksChoice(Asks):
    def ask(self) -> object:
        return choice(NAMES)  # here


class AsksUnseeded(Asks):
    def ask(self) -> object:
        return random.Random()  # here


class AsksUuid(Asks):
    def ask(self) -> object:
        return uuid.uuid4()  # here


class AsksFile(Asks):
    def ask(self) -> object:
        with open(os.devnull):  # here
            return None


class AsksPath(Asks):
    def ask(self) -> object:
        return Path("/").exists()  # here


class AsksEnvironment(Asks):
    def ask(self) -> object:
        return os.getenv("HOME")  # here


class AsksEnvironmentItself(Asks):
    def ask(self) -> object:
        return os.environ.get("HOME")  # here


class Sleeps(Asks):
    def ask(self) -> object:
        time.sleep(0)  # here
        return None


class AsksInSnapshot(Map):
    def snapshot(self) -> bytes:
        time.time()  # here
        return super().snapshot()


class Swallows(Map):
    """Catches whatever it can."""

    def apply(self, change: Any, context: Context) -> Any:
        try:
            time.time()  # here
        except BaseException:
            return "swallowed"
        return super().apply(change, context)


class AsksAndRaises(Map):
    def apply(self, change: Any, context: Context) -> Any:
        raise ValueError(time.time())


# -- snapshots


class Counting(Map):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def apply(self, change: Any, context: Context) -> Any:
        self.count += 1
        return self.count


class ForgetsField(Counting):
    """Its snapshot is that of a ``Map`` and knows nothing of ``count``."""


class Merges(Map):
    def install(self, snapshot: Readable) -> None:
        self.items.update(json.loads(snapshot.read()))


class SnapshotOfText(Map):
    def snapshot(self) -> Any:
        return json.dumps(self.items)


class SnapshotRaises(Map):
    def snapshot(self) -> bytes:
        return json.dumps(max(self.items)).encode()


class SnapshotCounts(Counting):
    def snapshot(self) -> bytes:
        self.count += 1
        return str(self.count).encode()

    def install(self, snapshot: Readable) -> None:
        self.count = int(snapshot.read())


class SnapshotTakesAway(Map):
    """Two snapshots in a row are equal; what comes after is not."""

    def snapshot(self) -> bytes:
        self.items.pop("apple", None)
        return super().snapshot()


class Pieces(Map):
    """A right one that is saved piece by piece, from a copy."""

    def snapshot(self) -> Any:
        items = self.items.copy()
        return (json.dumps(item).encode() + b"\n" for item in items.items())

    def install(self, snapshot: Readable) -> None:
        self.items = {}
        rest = b""
        while piece := snapshot.read(7):
            *lines, rest = (rest + piece).split(b"\n")
            self.items.update(json.loads(line) for line in lines)


class LivePieces(Pieces):
    """Its pieces are made from what ``apply`` changes meanwhile."""

    def snapshot(self) -> Any:
        return (json.dumps(item).encode() + b"\n" for item in self.items.items())


class LateCopy(Pieces):
    """A generator: its copy is made when the first piece is wanted, and no earlier."""

    def snapshot(self) -> Any:
        items = self.items.copy()
        for item in items.items():
            yield json.dumps(item).encode() + b"\n"


class LiveLists(Map):
    """Copies the map and not what lies in it: the last piece is of another time."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def apply(self, change: Any, context: Context) -> Any:
        result = super().apply(change, context)
        self.order.append(change[1])
        return result

    def snapshot(self) -> Any:
        items, order = self.items.copy(), self.order
        return (json.dumps(part).encode() + b"\n" for part in (items, order))

    def install(self, snapshot: Readable) -> None:
        self.items, self.order = map(json.loads, snapshot.read().splitlines())


class PiecesTakeAway(Pieces):
    """Making its pieces alters the state."""

    def snapshot(self) -> Any:
        items = self.items.copy()

        def pieces() -> Any:
            for item in items.items():
                yield json.dumps(item).encode() + b"\n"
            if threading.current_thread() is not threading.main_thread():
                self.items.clear()

        return pieces()


class PiecesOfText(Map):
    def snapshot(self) -> Any:
        return [json.dumps(self.items)]


class AsksInPieces(Map):
    def snapshot(self) -> Any:
        return self.pieces(super().snapshot())

    def pieces(self, saved: bytes) -> Any:
        yield saved
        time.time()  # here


class TakesBytes(Map):
    """Written for a snapshot that is bytes."""

    def install(self, snapshot: Any) -> None:
        self.items = json.loads(snapshot)


class InstallRaises(Map):
    def install(self, snapshot: Readable) -> None:
        raise RuntimeError("not written yet")


# -- results


class ReturnsLive(Map):
    def apply(self, change: Any, context: Context) -> Any:
        super().apply(["put", change[1], 0], context)
        return self.items


class ReturnsMuch(Map):
    def apply(self, change: Any, context: Context) -> Any:
        return b"x" * (1024 * 1024 + 1 if change[1] == "plum" else 1)


class ReturnsObject(Map):
    def apply(self, change: Any, context: Context) -> Any:
        return object() if change[1] == "plum" else 1


class HalfDone(Map):
    def apply(self, change: Any, context: Context) -> Any:
        self.items["last"] = context.sequence
        return super().apply(change, context)


class AlwaysRaises(Map):
    def apply(self, change: Any, context: Context) -> Any:
        raise ValueError("no")


class Leaves(Map):
    def apply(self, change: Any, context: Context) -> Any:
        raise SystemExit(3)


class DiesInChild(Map):
    """Ends the process where it is one of those that are compared."""

    def apply(self, change: Any, context: Context) -> Any:
        if IN_CHILD:
            sys.exit(9)
        return 0


# -- what is no state


class NoInstall:
    def apply(self, change: Any, context: Context) -> Any: ...

    def snapshot(self) -> Any: ...


class Waits(Map):
    async def apply(self, change: Any, context: Context) -> Any: ...


class NeedsArgument(Map):
    def __init__(self, size: int) -> None:
        self.size = size


class BadCodec(Map):
    codec = json


NOT_CALLABLE = 5
