"""Addresses as people write them."""

from __future__ import annotations

import pytest

from clusterconsensus.errors import TransportError
from clusterconsensus.transport.address import format_address, parse_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:7001", "127.0.0.1", 7001),
        ("[::1]:7001", "::1", 7001),
        ("db-1.example.org:65535", "db-1.example.org", 65535),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_good_addresses(address: str, host: str, port: int) -> None:
    assert parse_address(address) == (host, port)
    assert format_address(host, port) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        ":7001",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "host:²",
        "::1:7001",
        "[]:1",
        "a b:1",
        "http://a:1",
        "[::1:7001",
        "a\n:1",
        "host: 1",
        "host:00000000001",
    ],
)
def test_bad_addresses_are_named(address: str) -> None:
    with pytest.raises(TransportError) as caught:
        parse_address(address)
    assert repr(address) in str(caught.value)
