"""A small member that runs on this version of the library and on the one before.

It obeys lines of JSON like ``member``, and knows no more than an upgrade needs.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from typing import Any

from clusterconsensus import ConsensusError, Context, Member, Participant, Settings, TcpTransport


class Counter:
    """Counts changes. ``install`` takes bytes, as it once did, or a reader."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, change: Any, context: Context) -> int:
        self.count += 1
        return self.count

    def snapshot(self) -> bytes:
        return str(self.count).encode()

    def install(self, snapshot: Any) -> None:
        self.count = int(snapshot if isinstance(snapshot, bytes) else snapshot.read())


def say(**content: object) -> None:
    os.write(1, json.dumps(content).encode() + b"\n")


async def obey(command: dict[str, Any], participant: Participant[Counter]) -> dict[str, object]:
    match command["do"]:
        case "found":
            await participant.init_master()
        case "add":
            await participant.add_participant(Member(command["id"], command["address"]))
        case "remove":
            await participant.remove_participant(command["id"])
        case "submit":
            return {"count": await participant.submit("count")}
        case "read":
            return {"count": await participant.read(lambda state: state.count)}
        case "status":
            status = participant.status()
            return {
                "role": status.role.value,
                "master": "" if status.master is None else status.master.id,
                "level": getattr(status, "feature_level", 1),
            }
    return {}


async def main(order: dict[str, Any]) -> None:
    participant = Participant(
        cluster="shop",
        member=Member(order["id"], order["address"]),
        state=Counter(),
        directory=order["directory"],
        transport=TcpTransport(order["address"]),
        settings=Settings(
            heartbeat_seconds=0.04,
            election_timeout_seconds=0.4,
            retry_seconds=0.2,
            segment_bytes=65_536,
        ),
    )
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with participant:
        say(ready=True)
        while line := await reader.readline():
            command = json.loads(line)
            try:
                found = await obey(command, participant)
            except ConsensusError as error:
                found = {"error": f"{error.code}: {error}"}
            say(answer=command["number"], **found)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # die with the parent
        if os.getppid() != given["parent"]:
            os._exit(1)
    asyncio.run(main(given))
