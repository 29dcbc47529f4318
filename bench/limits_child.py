"""What the machine can do, measured with the least code that does it. Run as a child process."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import struct
import sys
import threading
import time

from bench.processes import Order, die_with_parent, obey

BLOCK_BYTES = 256
BATCH = bytes(100) * 512
COUNT = struct.Struct("<Q")
FILE_BYTES = 1 << 29
"""More than a bare quorum writes in one run; allocated ahead, removed afterwards."""


def fdatasync_seconds(path: str, count: int, *, written_ahead: bool) -> list[float]:
    """Write 256 bytes and sync them, ``count`` times over.

    Written ahead, the file neither grows nor changes its metadata: the least a durable write can
    cost here. Otherwise each write appends, and the file system notes the new length as well.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if written_ahead:
            os.write(descriptor, bytes(BLOCK_BYTES * count))
        os.fsync(descriptor)
        block = b"\xa5" * BLOCK_BYTES
        taken = []
        for number in range(count):
            started = time.perf_counter()
            os.pwrite(descriptor, block, number * BLOCK_BYTES)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - started)
        return taken
    finally:
        os.close(descriptor)
        os.unlink(path)


def listen() -> socket.socket:
    """A listening socket on a free port of the loopback."""
    return socket.create_server(("127.0.0.1", 0))


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive_exactly(connection: socket.socket, size: int) -> bool:
    while size:
        data = connection.recv(size)
        if not data:
            return False
        size -= len(data)
    return True


def echo(server: socket.socket) -> None:
    """Send every block of 256 bytes back, until the other side closes."""
    with server, server.accept()[0] as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        block = bytes(BLOCK_BYTES)
        while receive_exactly(connection, BLOCK_BYTES):
            connection.sendall(block)


def round_trip_seconds(port: int, count: int) -> list[float]:
    """256 bytes there and back between two processes, blocking sockets, one at a time."""
    block = bytes(BLOCK_BYTES)
    taken = []
    with connect(port) as connection:
        for _ in range(count):
            started = time.perf_counter()
            connection.sendall(block)
            receive_exactly(connection, BLOCK_BYTES)
            taken.append(time.perf_counter() - started)
    return taken


def append(connection: socket.socket, path: str) -> None:
    """One member of the bare quorum: append what arrives, sync it, say how much is durable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        os.fsync(descriptor)
        durable = 0
        connection.sendall(COUNT.pack(0))  # ready
        while data := connection.recv(1 << 20):
            os.pwrite(descriptor, data, durable % (FILE_BYTES - len(data)))
            os.fdatasync(descriptor)
            durable += len(data)
            connection.sendall(COUNT.pack(durable))
    finally:
        connection.close()
        os.close(descriptor)
        os.unlink(path)


def accept_and_append(server: socket.socket, path: str) -> None:
    with server:
        connection = server.accept()[0]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    append(connection, path)


def quorum_changes_per_second(
    ports: list[int], path: str, window_batches: int, seconds: float
) -> float:
    """Lead a bare quorum: batches of 512 changes of 100 bytes to three files in three processes.

    A change counts when two of the three have it durable. There is no protocol: no terms, no
    checks, no log, no state, nobody who waits for a result. ``window_batches`` are under way.
    """
    own, other = socket.socketpair()
    writer = threading.Thread(target=append, args=(other, path), daemon=True)
    writer.start()
    members = [own, *(connect(port) for port in ports)]
    for member in members:
        member.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        receive_exactly(member, COUNT.size)
        member.setblocking(False)
    durable = dict.fromkeys(members, 0)
    partial = dict.fromkeys(members, b"")
    window_bytes = window_batches * len(BATCH)
    with selectors.DefaultSelector() as selector:
        for member in members:
            selector.register(member, selectors.EVENT_READ, member)
        sent = committed = 0
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            while sent - committed + len(BATCH) <= window_bytes:
                for member in members:
                    member.setblocking(True)
                    member.sendall(BATCH)
                    member.setblocking(False)
                sent += len(BATCH)
            for key, _ in selector.select(1.0):
                member = key.data
                data = partial[member] + member.recv(1 << 16)
                whole = len(data) // COUNT.size * COUNT.size
                if whole:
                    durable[member] = COUNT.unpack_from(data, whole - COUNT.size)[0]
                partial[member] = data[whole:]
            committed = sorted(durable.values())[1]
    for member in members:
        member.close()
    writer.join(10)
    return committed / 100 / elapsed


async def futures_per_second(waiters: int, seconds: float) -> float:
    """512 tasks that each await a future, resolved all at once by one driver, again and again.

    This is what an asyncio library pays to hand every caller an answer, with nothing else done.
    """
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    stopping = False

    async def waiter() -> None:
        while not stopping:
            future: asyncio.Future[None] = loop.create_future()
            waiting.append(future)
            await future

    tasks = [loop.create_task(waiter()) for _ in range(waiters)]
    await asyncio.sleep(0)
    resolved = 0
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        batch, waiting = waiting, []
        for future in batch:
            future.set_result(None)
        resolved += len(batch)
        await asyncio.sleep(0)
    stopping = True
    for future in waiting:
        future.set_result(None)
    await asyncio.gather(*tasks)
    return resolved / elapsed


def handle(order: Order) -> object:
    """Carry out one order."""
    match order.do:
        case "fdatasync written ahead":
            return fdatasync_seconds(order.path, order.count, written_ahead=True)
        case "fdatasync append":
            return fdatasync_seconds(order.path, order.count, written_ahead=False)
        case "use cores":
            os.sched_setaffinity(0, order.cores)
            return None
        case "echo":
            server = listen()
            threading.Thread(target=echo, args=(server,), daemon=True).start()
            return server.getsockname()[1]
        case "round trips":
            return round_trip_seconds(order.ports[0], order.count)
        case "append":
            server = listen()
            threading.Thread(
                target=accept_and_append, args=(server, order.path), daemon=True
            ).start()
            return server.getsockname()[1]
        case "lead":
            return quorum_changes_per_second(
                order.ports, order.path, order.outstanding, order.seconds
            )
        case "futures":
            return asyncio.run(futures_per_second(order.outstanding, order.seconds))
        case _:
            raise ValueError(order.do)


if __name__ == "__main__":
    die_with_parent()
    obey(handle)
    sys.exit(0)
