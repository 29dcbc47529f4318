"""Every byte of a small directory flipped in turn: detected, never believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusterconsensus.simulation.journals.checks import check_flips
from clusterconsensus.storage import findings, identity, records
from clusterconsensus.storage.recovery import Scan


def test_every_byte_flipped_is_detected_and_never_believed() -> None:
    progress: list[int] = []
    report = check_flips(progress.append, all_bits_every=64, padding_every=8)
    assert report.failure == ""
    counts = report.counts
    assert counts["flips"] >= 30_000
    assert counts["flips"] == sum(
        counts[name] for name in ("refused", "harmless", "taken for torn")
    )
    assert counts["refused"] > 25_000
    assert counts["harmless"] > 1_000
    # The last write of the member that was killed, and no other.
    assert 1_000 < counts["taken for torn"] < 2_000
    assert counts["flips under an open journal"] > 5_000
    assert len(progress) > 50


def nothing_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is cut off at the first bad checksum (C-57)."""
    monkeypatch.setattr(Scan, "_witness", lambda *_: "")


def one_is_not_paranoid(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scan.run

    def run(scan: Scan) -> None:
        scan._paranoid = False
        real(scan)

    monkeypatch.setattr(Scan, "run", run)


def identities_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "crc32", lambda data: 0)
    real = identity._decode
    monkeypatch.setattr(
        identity,
        "_decode",
        lambda file, data: real(file, data.partition(b"\n")[0] + b"\n00000000\n"),
    )


def headers_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = records.decode_header
    monkeypatch.setattr(
        findings, "decode_header", lambda data: real(data[:1000] + bytes(96) + data[1096:])
    )


@pytest.mark.parametrize(
    "mutant",
    [nothing_is_evidence, one_is_not_paranoid, identities_are_believed, headers_are_believed],
)
def test_the_check_would_notice(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    report = check_flips(None, all_bits_every=1000, padding_every=100)
    assert "offset" in report.failure
