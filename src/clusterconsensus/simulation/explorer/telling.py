"""A way to a violation, told as a story that the story runner can replay.

The moves are made once more; each act becomes a command. A message is named by its kind where it is
the first of that kind on its link, and by its place there otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from clusterconsensus.simulation.explorer.checks import BrokenRuleError
from clusterconsensus.simulation.explorer.moments import LIMITS
from clusterconsensus.simulation.explorer.space import Act, Move, Space, change_text


class Counterexample(msgspec.Struct, frozen=True):
    """A way to a state in which an invariant does not hold."""

    rule: str
    """The number of the invariant, or ``halt`` where a member stopped itself."""
    text: str
    """What is wrong."""
    members: tuple[str, ...]
    """The ids of the members."""
    moves: tuple[tuple[str, ...], ...]
    """What happened, from the start on: for each move its commands in a story."""

    def story(self) -> str:
        """The moves in the language of ``simulation.cores.story``.

        The code that gave the violation gives it there too, at the last command; where it does not,
        commands that make no sense any more are left out.
        """
        limits = {
            name: int(getattr(LIMITS, name))
            for name in (
                "election_timeout_seconds",
                "heartbeat_seconds",
                "disk_timeout_seconds",
                "keep_log_entries",
            )
        }
        lines = [
            f"# {self.rule}: {self.text}",
            f"# Found after {len(self.moves)} moves.",
            "",
            "> lenient",
            "> limits " + " ".join(f"{name}={value}" for name, value in limits.items()),
            f"> cluster {' '.join(self.members)}",
            *(f"> hold disk {member_id}" for member_id in self.members),
            *(f"> {command}" for move in self.moves for command in move),
        ]
        return "\n".join(lines) + "\n"


def counterexample(space: Space, rule: str, text: str, moves: Sequence[Move]) -> Counterexample:
    """Tell a way from the start of a space."""
    teller = _Teller(space)
    told = tuple(tuple(teller.tell(move)) for move in moves)
    return Counterexample(rule, text, tuple(space.ids), told)


class _Teller:
    """Follows a way, with every link in the order in which things were sent."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.values = list(space.start)
        self.links: dict[int, list[int]] = {}
        self.copies: dict[tuple[int, int], list[str]] = {}
        self.copied = 0

    def tell(self, move: Move) -> list[str]:
        acts: list[Act] = []
        with suppress(BrokenRuleError):  # the last move of all
            self.space.play(self.values, move, acts)
        lines: list[str] = []
        for act in acts:
            lines += self._tell(act)
            if act.record is not None:
                for link, message in act.record.pushes:
                    self.links.setdefault(link, []).append(message)
        return lines

    def _tell(self, act: Act) -> list[str]:
        member_id = self.space.ids[act.place % self.space.count]
        match act.verb:
            case "deliver":
                return [f"deliver {self._take(act)}"]
            case "lose" | "drop":
                return [f"drop {self._take(act)}"]
            case "repeat":
                self.copied += 1
                name = f"copy{self.copied}"
                self.copies.setdefault((act.place, act.message), []).append(name)
                return [f"stash {self._take(act)} {name}", f"unstash {name}"]
            case "late":
                return [f"unstash {self.copies[act.place, act.message].pop(0)}"]
            case "submit":
                return [f"append {member_id} {change_text(act.message)}"]
            case "crash":
                kept = f" kept {act.message}" if act.message else ""
                return [f"crash {member_id}{kept}", f"restart {member_id}"]
            case "snapshot":
                return [f"snapshot {member_id} alone"]
            case "damage":
                return [f"crash {member_id}", f"damage {member_id}", f"restart {member_id}"]
            case "tick":
                return [f"timeout {member_id}"]
            case verb:
                return [f"{verb} {member_id}"]

    def _take(self, act: Act) -> str:
        """Take a message from its link, and say which."""
        space = self.space
        waiting = self.links[act.place]
        kinds = [type(space.messages[number]).__name__.lower() for number in waiting]
        place = waiting.index(act.message)
        kind = kinds[place]
        del waiting[place]
        source, target = divmod(act.place, space.count)
        which = kind if kinds.index(kind) == place else str(place + 1)
        return f"{space.ids[source]}->{space.ids[target]} {which}"
