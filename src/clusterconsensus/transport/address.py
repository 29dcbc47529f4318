"""Network addresses as people write them, and what the system finds behind them."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from clusterconsensus.errors import TransportError

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def parse_address(address: str) -> tuple[str, int]:
    """Split ``"host:port"`` into host and port. An IPv6 host stands in brackets: ``"[::1]:7001"``.

    Raises:
        TransportError: naming the address and what is wrong with it.
    """
    host, colon, digits = address.rpartition(":")
    if not colon:
        raise TransportError(f"the address {address!r} is not host:port: it has no port")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) < 65536):
        raise TransportError(f"the address {address!r} has the port {digits!r}, not 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise TransportError(
            f"the address {address!r} is ambiguous: an IPv6 host stands in brackets"
        )
    if not host or not host.isprintable() or any(character in host for character in " []@/"):
        raise TransportError(f"the address {address!r} has no usable host")
    return host, int(digits)


def format_address(host: str, port: int) -> str:
    """The inverse of ``parse_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Open a TCP connection; every address behind a name is tried in turn.

    Raises:
        ConnectionError: every address refused or reset: nobody is there.
        OSError: anything else, such as an unknown name or a host that cannot be reached.
    """
    refusal: ConnectionError | None = None
    failure: OSError | None = None
    for family, address in await _resolve(loop, host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            if sock.getsockname() == sock.getpeername():
                # A dial to a free port of the range that the system also takes local ports from
                # can meet itself (a simultaneous open); nobody is there.
                raise ConnectionRefusedError("the dial has met itself")
        except ConnectionError as error:
            sock.close()
            refusal = error
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or refusal or OSError(f"the name {host!r} has no address")


async def _resolve(
    loop: asyncio.AbstractEventLoop, host: str, port: int
) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    try:
        # A literal address needs no look-up, and so no thread.
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, cast(SocketAddress, address)) for family, _, _, _, address in found]
