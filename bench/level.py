"""``python -m bench.level``: how long a member that missed 50,000 changes takes to be level again.

Beside it, in the same round: how long the bytes of these changes take over one TCP connection to
another process that writes them to a file and syncs it, which is the least that a member could do.
The time begins when the member takes part again, so Python's own start and what the member already
had are not in it; ``start_seconds`` tells that. Prints JSON on the standard output.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.ours import Cluster, Status
from bench.processes import Order
from bench.workload import VALUE_BYTES_VARIABLE, Load

CHUNK_BYTES = 256 * 1024

RECEIVER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
with open(sys.argv[1], "wb") as file:
    while data := connection.recv(262144):
        file.write(data)
    file.flush()
    os.fdatasync(file.fileno())
connection.sendall(b"k")
"""


class Row(msgspec.Struct):
    """One round with values of one size."""

    value_bytes: int
    missed_changes: int
    stream_seconds: float
    start_seconds: float
    level_seconds: float
    ratio: float


def stream_seconds(directory: Path, size_bytes: int) -> float:
    """How long so many bytes take to another process's disk."""
    command = [sys.executable, "-c", RECEIVER, str(directory / "stream")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            piece = bytes(CHUNK_BYTES)
            for start in range(0, size_bytes, CHUNK_BYTES):
                connection.sendall(piece[: min(CHUNK_BYTES, size_bytes - start)])
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        return time.perf_counter() - begin


def measure(directory: Path, value_bytes: int, changes: int) -> Row:
    """One cluster, one absence."""
    os.environ[VALUE_BYTES_VARIABLE] = str(value_bytes)
    with Cluster(directory) as cluster:
        master, followers = cluster.roles()
        missing = followers[0]
        cluster.members[missing].kill()
        cluster.members[master].ask(Order("fill", outstanding=512, count=changes), Load, 300)
        target = cluster.members[master].ask(Order("status"), Status).applied
        stream = stream_seconds(directory, changes * value_bytes)
        begin = time.perf_counter()
        cluster.spawn(missing)
        started = time.perf_counter()
        cluster.wait_applied(missing, target, 300)
        level = time.perf_counter() - started
    return Row(value_bytes, changes, stream, started - begin, level, level / stream)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.level", description=__doc__)
    parser.add_argument("--changes", type=int, default=50_000)
    parser.add_argument("--value-bytes", type=int, nargs="*", default=[100, 4_096])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-level-"))
    try:
        rows = [
            measure(directory / f"{value_bytes}-{number}", value_bytes, arguments.changes)
            for value_bytes in arguments.value_bytes
            for number in range(arguments.rounds)
        ]
    finally:
        shutil.rmtree(directory)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows)).decode() + "\n")


if __name__ == "__main__":
    main()
