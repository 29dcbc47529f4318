"""Settings validate themselves together; what they say names the numbers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clusterconsensus.errors import ConsensusError, SettingsError
from clusterconsensus.settings import KIB, MIB, Settings

NAMES = [name for name in Settings.__struct_fields__ if name != "paranoid"]


def sized(name: str, value: int) -> dict[str, Any]:
    return {name: value}


def refused(**changed: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings(**changed).validate()
    return str(caught.value)


def test_the_defaults_are_valid() -> None:
    settings = Settings()
    assert settings.validate() is settings


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", None])
def test_every_number_is_above_zero(name: str, value: object) -> None:
    said = refused(**{name: value})
    assert name in said
    assert repr(value) in said


def test_a_heartbeat_is_at_most_a_fifth_of_the_election_timeout() -> None:
    Settings(heartbeat_seconds=0.2, election_timeout_seconds=1.0).validate()
    said = refused(heartbeat_seconds=0.25, election_timeout_seconds=1.0)
    assert "heartbeat_seconds (0.25)" in said
    assert "election_timeout_seconds (1.0)" in said


@pytest.mark.parametrize("name", ["max_change_bytes", "max_batch_bytes"])
def test_a_message_holds_the_largest_change_and_batch(name: str) -> None:
    Settings(**sized(name, 8 * MIB - 64 * KIB)).validate()
    said = refused(**{name: 8 * MIB - 64 * KIB + 1})
    assert f"{name} ({8 * MIB - 64 * KIB + 1})" in said
    assert f"max_message_bytes ({8 * MIB})" in said


@pytest.mark.parametrize("name", ["peer_queue_bytes", "window_bytes"])
def test_a_queue_holds_the_largest_message(name: str) -> None:
    Settings(**sized(name, 8 * MIB)).validate()
    said = refused(**{name: 8 * MIB - 1})
    assert f"{name} ({8 * MIB - 1})" in said
    assert f"max_message_bytes ({8 * MIB})" in said


@pytest.mark.parametrize("name", ["max_pending_bytes", "max_staged_bytes"])
def test_what_waits_has_room_for_the_largest_change(name: str) -> None:
    Settings(**sized(name, 4 * MIB)).validate()
    said = refused(**{name: 4 * MIB - 1})
    assert f"{name} ({4 * MIB - 1})" in said
    assert f"max_change_bytes ({4 * MIB})" in said


def test_segments_are_not_tiny() -> None:
    Settings(segment_bytes=64 * KIB).validate()
    assert f"segment_bytes ({64 * KIB - 1})" in refused(segment_bytes=64 * KIB - 1)


def test_the_error_is_of_both_families() -> None:
    assert issubclass(SettingsError, ConsensusError)
    assert issubclass(SettingsError, ValueError)


def test_settings_are_frozen_and_have_no_unknown_names() -> None:
    settings = Settings()
    with pytest.raises(AttributeError):
        settings.paranoid = True  # type: ignore[misc]  # that it is frozen is the point
    with pytest.raises(TypeError):
        Settings(heartbeat=1)  # type: ignore[call-arg]  # so is that the name is unknown
    assert msgspec.structs.replace(settings, paranoid=True).paranoid
