"""Every limit and every time, in one frozen struct, validated together."""

from __future__ import annotations

import math

import msgspec

from clusterconsensus.errors import SettingsError

KIB = 1024
MIB = 1024 * KIB


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a participant behaves. Units come last in each name.

    Members of one cluster should run with the same times; no setting changes what ``apply`` sees,
    so members with different settings still agree.

    Raises:
        SettingsError: from ``validate`` (which ``Participant`` calls) with the numbers that
            contradict each other.
    """

    heartbeat_seconds: float = 0.1
    """How often the master is heard when nothing happens. At most a fifth of
    ``election_timeout_seconds``."""
    election_timeout_seconds: float = 1.0
    """E: after a random time between E and 2 E without a master a voter stands for election, and a
    master that no majority acknowledged for E steps down."""
    disk_timeout_seconds: float = 1.0
    """A master whose disk has not finished a sync for this long steps down."""
    reconnect_delay_seconds: float = 0.02
    """A follower whose connection to the master broke stands for election after a random time up
    to this (E13)."""
    submit_timeout_seconds: float = 10.0
    """How long ``submit`` tries, retries included, when the call names no ``timeout``."""
    read_timeout_seconds: float = 10.0
    """The same for ``read``, ``ping_master``, ``start_election``, ``join``, and every change of the
    membership."""
    retry_seconds: float = 1.0
    """A request that was sent and not answered is sent again after this long."""
    session_expiry_seconds: float = 3600.0
    """A session that has been idle this long by replicated time is closed by the master."""

    max_change_bytes: int = 4 * MIB
    """The largest encoded change, and the largest sum of one ``submit_all``."""
    max_batch_bytes: int = 1 * MIB
    """A log entry gathers changes up to this size; a larger change is alone in its own."""
    max_message_bytes: int = 8 * MIB
    """The largest message a transport carries. Above ``max_change_bytes`` and ``max_batch_bytes``
    by at least 64 KiB."""
    max_pending_changes: int = 65_536
    """Changes that wait for an outcome at one participant; more are refused as overloaded."""
    max_pending_bytes: int = 64 * MIB
    """The same in encoded bytes."""
    max_pending_reads: int = 65_536
    """Reads that wait at one participant; more are refused."""
    max_staged_bytes: int = 64 * MIB
    """Entries at the master that are not committed yet; submits beyond it are refused."""
    max_sessions: int = 10_000
    """Sessions in the replicated table; the master closes the longest idle beyond it."""
    window_messages: int = 64
    """Accepts on their way to one follower."""
    window_bytes: int = 16 * MIB
    """The same in bytes."""
    peer_queue_bytes: int = 32 * MIB
    """What may wait to be sent to one peer; beyond it whole messages are dropped, which the
    protocol tolerates."""
    log_cache_bytes: int = 16 * MIB
    """Applied log entries that stay in memory for followers; older ones are read from disk."""
    snapshot_log_bytes: int = 64 * MIB
    """A snapshot is taken when the log has grown by this much since the last one, and by no less
    than the size of the last one (S5)."""
    snapshot_entries: int = 1_000_000
    """The same, in entries."""
    snapshot_on_close: bool = True
    """Whether closing takes a snapshot, so that the next start need not apply the log again."""
    keep_log_entries: int = 10_000
    """Entries that stay in the log behind a snapshot, so that a member that was away for a short
    while gets these and not the whole state (S6)."""
    keep_log_bytes: int = 256 * MIB
    """If the log is larger than this, ``keep_log_entries`` keeps nothing beyond it: then only what
    the older of two snapshots needs stays."""
    max_kept_log_entries: int = 10_000_000
    """Entries that a running transfer of a snapshot may hold back from being removed (S6)."""
    max_snapshot_bytes: int = 64 * 1024 * MIB
    """The largest snapshot that is taken from a master; a larger one is refused, with a ``Trouble``
    event."""
    chunk_bytes: int = 256 * KIB
    """A snapshot travels in pieces of this size, or of what a message can carry."""
    catch_up_bytes_per_second: int = 64 * MIB
    """At most this much of a snapshot is sent to one member in a second."""
    scrub_bytes_per_second: int = 1 * MIB
    """At this pace closed journal segments and snapshots are read again and checked (W8)."""
    repair: bool = True
    """Whether a member whose journal is damaged starts without a vote, and gets from the others
    what it lost (W4). If not, the start is refused."""
    lease_reads: bool = False
    """Whether a master may answer reads without asking anybody while a majority has lately
    acknowledged it (L2). Must be the same on every member; relies on ``max_clock_drift``. A killed
    master is then replaced only after ``election_timeout_seconds``. A member that had it switched
    on and is to run without it must first be down for that long."""
    max_clock_drift: float = 0.1
    """How much faster or slower the clock of a member may run than another's, as a fraction. Only
    leases depend on it."""
    slow_disk_seconds: float = 0.25
    """A master whose syncs take this long on average hands over to a member that is up to date."""
    hand_over_on_close: bool = True
    """Whether a master that closes in good order hands over first."""
    apply_slice_seconds: float = 0.01
    """After this long in ``State.apply`` the loop gets a turn, so that heartbeats go out."""
    max_events: int = 1_000
    """Events that wait for one reader of ``events()``; beyond it the oldest are dropped, and
    a ``Trouble`` event says how many."""
    segment_bytes: int = 16 * MIB
    """The size of one journal file; allocated ahead."""
    paranoid: bool = False
    """Treat a damaged last batch of the journal as damage of acknowledged data even where it looks
    like a write that a crash tore (W3)."""

    def validate(self) -> Settings:
        """Check all settings together and return them.

        Raises:
            SettingsError: naming the setting, its value and the bound.
        """
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                if not isinstance(value, bool):
                    raise SettingsError(f"{field.name} must be True or False, not {value!r}")
                continue
            whole = field.type is int
            kinds = int if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                kind = "a whole number" if whole else "a number"
                raise SettingsError(f"{field.name} must be {kind} above 0, not {value!r}")
        if self.heartbeat_seconds > self.election_timeout_seconds / 5:
            raise SettingsError(
                f"heartbeat_seconds ({self.heartbeat_seconds}) must be at most a fifth of "
                f"election_timeout_seconds ({self.election_timeout_seconds})"
            )
        for name in ("max_change_bytes", "max_batch_bytes"):
            value = getattr(self, name)
            if self.max_message_bytes < value + 64 * KIB:
                raise SettingsError(
                    f"max_message_bytes ({self.max_message_bytes}) must exceed {name} ({value}) "
                    f"by at least {64 * KIB}"
                )
        for name in ("peer_queue_bytes", "window_bytes"):
            value = getattr(self, name)
            if value < self.max_message_bytes:
                raise SettingsError(
                    f"{name} ({value}) must be at least max_message_bytes "
                    f"({self.max_message_bytes})"
                )
        for name in ("max_pending_bytes", "max_staged_bytes"):
            value = getattr(self, name)
            if value < self.max_change_bytes:
                raise SettingsError(
                    f"{name} ({value}) must be at least max_change_bytes ({self.max_change_bytes})"
                )
        if self.max_clock_drift >= 1:
            raise SettingsError(
                f"max_clock_drift ({self.max_clock_drift}) is a fraction and must be below 1"
            )
        if self.max_kept_log_entries < self.keep_log_entries:
            raise SettingsError(
                f"max_kept_log_entries ({self.max_kept_log_entries}) must be at least "
                f"keep_log_entries ({self.keep_log_entries})"
            )
        if self.segment_bytes < 64 * KIB:
            raise SettingsError(f"segment_bytes ({self.segment_bytes}) must be at least {64 * KIB}")
        return self
