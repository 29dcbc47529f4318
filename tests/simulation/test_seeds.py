"""Whole seeds: one seed is one trace, the faults are what the plan says, and wrong is noticed."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.recovery import Recovery
from clusterconsensus.errors import NotAppliedError
from clusterconsensus.runtime.applier import Applier
from clusterconsensus.simulation.judges.history import History
from clusterconsensus.simulation.judges.models import MapModel, MapState
from clusterconsensus.simulation.mutants import apply
from clusterconsensus.simulation.running.seeds import Result, run
from clusterconsensus.simulation.running.verdicts import against_model, out_of_order
from clusterconsensus.simulation.telling.recording import Recorder
from clusterconsensus.simulation.trouble.plan import BY_NAME, FAULTS, Plan, draw
from clusterconsensus.simulation.workloads import BUILT_IN, OwnWorkload, built_in
from clusterconsensus.state import Context, Readable


def sound(plan: Plan) -> Result:
    result = run(plan)
    assert result.violation is None, f"seed {plan.seed}: {result.violation}"
    return result


def test_one_seed_is_one_trace_with_or_without_a_recorder() -> None:
    first = sound(draw(5))
    again = run(draw(5), recorder=Recorder(seed=5))
    other = sound(draw(6))
    assert (first.trace, first.events) == (again.trace, again.events)
    assert first.trace != other.trace
    assert again.recording is not None
    assert len(again.recording.messages) > 100
    assert {"master", "start"} <= {mark.kind for mark in again.recording.marks}


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS if fault.likely])
def test_every_fault_alone_is_survived_and_happens(name: str) -> None:
    happened = 0
    for seed in range(3):
        plan = draw(seed, members=3, seconds=12.0, faults=(name,))
        result = sound(plan)
        happened += result.sometimes.get(f"fault {name}", 0)
    assert happened


def test_a_plan_is_drawn_before_anything_happens() -> None:
    plan = draw(11)
    assert plan == draw(11)
    assert plan != draw(12)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    less = plan.without(frozenset(plan.faults[:1]))
    assert set(less.actions) < set(plan.actions)
    assert plan.only(frozenset((1,))).actions == plan.actions[:1]
    named = draw(11, faults=("kill", "cut"), members=4, seconds=3.0)
    assert named.faults == ("kill", "cut")
    assert {action.fault for action in named.actions} == {"kill", "cut"}
    assert (named.members, named.seconds) == (4, 3.0)
    with pytest.raises(ValueError, match=r"no fault 'kil'.*kill-master"):
        draw(1, faults=("kil",))


def test_leaving_a_fault_out_does_not_move_the_others() -> None:
    both = {(a.at, a.fault) for a in draw(3, faults=("kill", "cut")).actions}
    one = {(a.at, a.fault) for a in draw(3, faults=("cut",)).actions}
    assert one < both


@pytest.mark.parametrize("workload", BUILT_IN)
def test_every_workload_is_used_and_checked(workload: str) -> None:
    result = sound(draw(7, members=3, seconds=10.0, workload=workload))
    assert result.workload == workload
    assert result.sometimes["call ok"] > 5


def test_the_membership_goes_from_one_to_all_and_back() -> None:
    found: Counter[str] = Counter()
    for seed in range(8):
        plan = draw(seed, members=1, seconds=20.0, faults=("membership",))
        assert plan.machines == 7
        found.update(sound(plan).sometimes)
        if found["everybody belongs"] and found["one voter is left"]:
            break
    assert found["everybody belongs"]
    assert found["one voter is left"]
    assert found["membership add ok"]
    assert found["membership remove ok"]
    assert found["master removed"]


def test_snapshots_are_drawn_so_small_that_they_are_taken_and_sent() -> None:
    plans = [draw(seed) for seed in range(40)]
    assert len({plan.settings.snapshot_entries for plan in plans}) > 3
    assert {plan.settings.lease_reads for plan in plans} == {False, True}
    assert all(
        plan.settings.max_clock_drift == 0.5 for plan in plans if "drift" in plan.faults
    )  # or leases would promise what no clock keeps
    assert all(plan.settings.validate() for plan in plans)


def test_all_faults_are_described() -> None:
    assert len(BY_NAME) == len(FAULTS)
    assert all(fault.what and fault.name == fault.name.lower() for fault in FAULTS)


# -- what is wrong is noticed


@pytest.mark.parametrize(
    ("fault", "rules"),
    [("old-image", "I-5 I-21 I-6 D3 S6"), ("lying-disk", "I-10 D1 D2 D3 I-21 I-5")],
)
def test_faults_that_no_cluster_survives_are_noticed(fault: str, rules: str) -> None:
    found = []
    for seed in range(10):
        plan = draw(seed, members=3, seconds=20.0, faults=(fault, "kill", "cut"))
        violation = run(plan).violation
        if violation is not None:
            found.append(violation)
        if len(found) > 1:
            break
    assert found
    assert all(each.kind == "safety" and each.rule in rules.split() for each in found), found


@pytest.mark.parametrize(
    ("mutant", "seeds"),
    [("accept-below-promise", 3), ("nothing-is-adopted", 20), ("journal-not-synced", 3)],
)
def test_deliberate_bugs_of_the_core_show_in_whole_clusters(mutant: str, seeds: int) -> None:
    with apply(mutant):
        violations = (run(draw(seed)).violation for seed in range(seeds))
        assert any(each is not None and each.kind == "safety" for each in violations)


def test_members_that_elect_another_while_a_lease_lasts_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def soon(self: Local) -> float:
        return self.limits.election_timeout_seconds * (0.3 + 0.1 * self.chance)

    monkeypatch.setattr(Local, "hears_master", lambda self: self.leads)
    monkeypatch.setattr(Local, "election_delay", soon)
    found = set()
    for seed in range(6):
        plan = draw(seed, members=3, seconds=10.0, faults=("lease-clock", "isolate-master"))
        violation = run(plan).violation
        found |= {violation.rule} if violation else set()
    assert "I-18" in found


def test_a_member_that_votes_before_it_is_whole_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(self: Recovery) -> None:
        if self._local.recovering and not self._ticket:
            self._ticket = self._local.persist(recovering=False)
        real(self)

    real = Recovery.end_of_turn
    monkeypatch.setattr(Recovery, "end_of_turn", at_once)
    found = set()
    for seed in range(20):
        plan = draw(seed, members=3, seconds=10.0, faults=("rot", "flip-journal", "power"))
        violation = run(plan).violation
        found |= {violation.rule} if violation else set()
    assert found & {"W5", "I-19", "I-4", "I-10", "E5"}, found


def test_a_change_that_is_applied_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Applier._apply_one

    def twice(self: Applier, data: bytes, context: Context) -> bytes:
        if context.sequence == 20:
            real(self, data, context)
        return real(self, data, context)

    monkeypatch.setattr(Applier, "_apply_one", twice)
    violation = run(draw(1, members=3, seconds=10.0, faults=())).violation
    assert violation is not None
    assert violation.rule in ("I-15", "I-10")


def test_an_unknown_outcome_that_is_called_refused_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unknown must never be reported as a failure (X4)."""

    def failed(message: str, request: int | None = None) -> NotAppliedError:
        return NotAppliedError(message)

    monkeypatch.setattr("clusterconsensus.runtime.submits.OutcomeUnknownError", failed)
    found = set()
    for seed in range(15):
        plan = draw(seed, members=3, seconds=10.0, faults=("isolate-master", "loss"))
        violation = run(plan).violation
        found |= {violation.rule} if violation else set()
    assert "X4" in found


class Fickle(MapState):
    """A state machine that is not deterministic: it counts its instances."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Fickle.made += 1
        self.number = Fickle.made

    def apply(self, change: object, context: Context) -> object:
        super().apply(change, context)
        return self.number if context.sequence % 10 == 0 else None


def test_a_state_machine_that_is_not_deterministic_is_caught() -> None:
    own = OwnWorkload(Fickle, lambda chance: ["put", "x", chance.randrange(10)])
    violation = run(draw(2, members=3, seconds=5.0, faults=()), workload=own).violation
    assert violation is not None
    assert violation.rule == "I-13"
    assert "not deterministic" in violation.text


class Forgetful(MapState):
    """Its snapshot leaves something out."""

    def install(self, snapshot: Readable) -> None:
        super().install(snapshot)
        self.apply(["delete", "x"], Context(0, 0, 0.0, 0))


def test_a_snapshot_that_does_not_restore_is_caught() -> None:
    own = OwnWorkload(Forgetful, lambda chance: ["put", "x", chance.randrange(10)])
    violation = run(draw(2, members=3, seconds=5.0, faults=()), workload=own).violation
    assert violation is not None
    assert violation.rule == "I-14"


def test_a_users_own_state_runs_under_faults() -> None:
    own = OwnWorkload(MapState, lambda chance: ["put", "x", chance.randrange(10)])
    result = run(draw(9), workload=own)
    assert result.violation is None
    assert result.workload == "own"


def test_orders_that_contradict_the_log_are_found() -> None:
    history = History()
    first = history.begin("c1", ("put", "x", 1), 0.0)
    history.end(first, 1.0, "ok", None)
    second = history.begin("c2", ("put", "x", 2), 2.0)
    history.end(second, 3.0, "ok", 1)
    first.place, second.place = 0.0, 1.0
    operations = history.operations
    assert out_of_order(operations) is None
    assert against_model(operations, MapModel(), {}) is None
    second.result = 7
    assert "in the log's order it gives 1" in (against_model(operations, MapModel(), {}) or "")
    first.place, second.place = 1.0, 0.0
    assert "stands before" in (out_of_order(operations) or "")


def test_unknown_workloads_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no workload 'heap'; there are map"):
        built_in("heap")
