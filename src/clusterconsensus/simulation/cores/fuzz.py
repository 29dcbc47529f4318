"""Random schedules for the pure core. One seed, one schedule.

A seed first draws which faults there are and how often; then it takes a few hundred random steps,
nasty ones more often than nature would; then everything is healed, and the cluster must come back:
a new change is applied within five election timeouts, everybody ends with the same state, and
nobody waits without an answer.

To look for failures::

    python -m clusterconsensus.simulation.cores.fuzz 0 5000      # these seeds
    python -m clusterconsensus.simulation.cores.fuzz 1234        # one seed, told in full
"""

from __future__ import annotations

import os
import sys
import time

from clusterconsensus.simulation.cores.happenings import SMALL, Happenings
from clusterconsensus.simulation.cores.member import Member

WAIT_SECONDS = 5 * SMALL.election_timeout_seconds


class Schedule(Happenings):
    """One seed's schedule, from the first step to the healed cluster."""

    def run(self) -> None:
        """Take all steps, heal, and see that the cluster comes back."""
        actions = [action for action, _ in self.actions]
        weights = [weight for _, weight in self.actions]
        for number in range(self.steps):
            if self.random.random() < self.trouble:
                (action,) = self.random.choices(actions, weights)
                action()
            else:
                self.progress()
            if number % 50 == 0:
                self.check_deeply()
        self.come_back()

    def check_deeply(self) -> None:
        for member in self.cluster.by_id.values():
            if member.is_up:
                self.cluster.ghost.check_deeply(member)

    def come_back(self) -> None:
        cluster = self.cluster
        cluster.say("-- healing")
        cluster.cuts.clear()
        self.attic.clear()
        for member in cluster.by_id.values():
            member.holds_disk = member.holds_apply = False
            member.crash_at_persist = 0
            if not member.is_up:
                self._forget_submits_to(member)
                cluster.restart(member)
            cluster.sync(member)
            cluster.apply(member)
        first = self.somebody()
        (last_call,) = cluster.submit(first, "n+1")
        began = cluster.now
        while not last_call.outcome or last_call.outcome == "session expired":
            if last_call.outcome or self.somebody() is not first:
                first = self.somebody()
                (last_call,) = cluster.submit(first, "n+1")
            if cluster.now > began + WAIT_SECONDS:
                raise AssertionError(f"I-22: no change is applied within {WAIT_SECONDS} s")
            cluster.run(0.1)
            for member in cluster.by_id.values():
                cluster.send_calls(member)
        self.waited = cluster.now - began
        for _ in range(100):
            cluster.run(0.1)
            for member in cluster.by_id.values():
                cluster.send_calls(member)
            if self.replace_lost():
                continue
            if not self._unrest():
                break
        else:
            raise AssertionError(f"I-22: no rest: {self._unrest()}")
        self._check_clients()

    def somebody(self) -> Member:
        """A member that belongs to the cluster, and will."""
        there = [
            self.cluster.members[name]
            for name in self.cluster.ghost.configurations[-1][1].everyone
            if self.cluster.members[name].is_up
        ]
        return next((member for member in there if self._belongs(member)), there[0])

    def _belongs(self, member: Member) -> bool:
        """Whether no configuration in force at anybody is without it."""
        return all(
            member.name in other.local.log.configuration.everyone
            for other in self.cluster.by_id.values()
            if other.is_up and other.local.log.configuration_seq > 1
        )

    def _unrest(self) -> str:
        """What keeps the cluster from being at rest; empty when nothing does."""
        cluster = self.cluster
        masters = [member for member in cluster.by_id.values() if member.serves]
        if len(masters) != 1:
            return f"masters {[member.id for member in masters]}"
        master = masters[0]
        configuration = master.local.log.configuration
        for seat in configuration.seats:
            member = cluster.members[seat.incarnation]
            machine = member.machine
            if member.client.calls:
                return f"the client of {member} waits for {list(member.client.calls)}"
            if machine.applied != master.local.log.last_seq:
                return f"{seat.id} has applied {machine.applied} of {master.local.log.last_seq}"
            if machine.checksum != master.machine.checksum:
                return f"{seat.id} has another checksum"
            if seat.promoting:
                return f"{seat.id} is no voter yet"
            if member.local.recovering:
                return f"{seat.id} is not whole yet"
        return ""

    def _check_clients(self) -> None:
        """Everything acknowledged is there once; everything refused for good is not (I-15)."""
        cluster = self.cluster
        machine = next(m for m in cluster.by_id.values() if m.serves).machine
        executed = {(session, number) for _, session, number, _ in machine.executed}
        if len(executed) != len(machine.executed):
            raise AssertionError("I-15: a request took effect twice")
        for member in cluster.by_id.values():
            client = member.client
            for call in client.ended.values():
                key = (client.session, call.number)
                if call.outcome == "not applied" and key in executed:
                    raise AssertionError(f"X4: {call} was applied")
        added = sum(text == "n+1" for *_, text in machine.executed)
        if machine.values.get("n", 0) != added:
            raise AssertionError(f"I-15: n is {machine.values.get('n', 0)} after {added} additions")
        if any(member.diverged for member in cluster.by_id.values()):
            raise AssertionError("I-13: a member was told that it has diverged")


def main(arguments: list[str]) -> int:
    """Run seeds and report those that fail."""
    if len(arguments) == 1:
        schedule = Schedule(int(arguments[0]), tells=True)
        try:
            schedule.run()
        finally:
            print("\n".join(schedule.cluster.told))
        return 0
    failed: list[int] = []
    began = time.perf_counter()
    turns = 0
    waits: list[float] = []
    for seed in range(int(arguments[0]), int(arguments[1])):
        schedule = Schedule(seed)
        try:
            schedule.run()
            waits.append(schedule.waited)
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if len(failed) >= int(os.environ.get("FUZZ_STOP", "30")):
                break
        turns += schedule.cluster.turns
    seconds = time.perf_counter() - began
    waits.sort()
    print(
        f"{len(waits)} seeds passed, {len(failed)} failed, {turns} turns in {seconds:.1f} s "
        f"({turns / seconds:.0f}/s); waited {waits[len(waits) // 2] if waits else 0:.2f} s "
        f"(median), {waits[-1] if waits else 0:.2f} s (longest)"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
