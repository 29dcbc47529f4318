"""The check at the end of the demonstration finds what is planted, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from clusterconsensus import Context
from clusterconsensus.cli.demo.bank import ACCOUNTS, Bank, Book, book_of, transfer_of
from clusterconsensus.cli.demo.checker import JournalError, Verdict, check, fates_of
from clusterconsensus.cli.demo.plan import FaultKind, plan_faults
from clusterconsensus.cli.demo.report import Failover, Report, report_of
from clusterconsensus.cli.demo.writer import Fate, Journal, read_journal

SEED = 7
ACKNOWLEDGED = [f"w0.0.{number}" for number in range(1, 40)]
UNKNOWN = ["w0.1.1", "w0.1.2"]
REFUSED = ["w0.2.1"]
FATES = {
    **dict.fromkeys(ACKNOWLEDGED, Fate.ACKNOWLEDGED),
    **dict.fromkeys(UNKNOWN, Fate.UNKNOWN),
    **dict.fromkeys(REFUSED, Fate.REFUSED),
}


def a_book(*, without: str = "", twice: str = "", extra: tuple[str, ...] = ()) -> Book:
    applied = [(key, 2 if key == twice else 1) for key in ACKNOWLEDGED if key != without]
    return book_of([*applied, *((key, 1) for key in extra)], SEED)


def a_report(verdict: Verdict) -> Report:
    faults = [Failover(kind=FaultKind.KILL, victim="a", seconds=0.5)]
    return report_of(
        verdict, members=3, seed=SEED, writing_seconds=2.0, faults=faults, directory=None
    )


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    verdict = check(FATES, [a_book(), a_book(), a_book()], SEED)
    assert not verdict.fault_found
    assert (verdict.acknowledged, verdict.unknown, verdict.refused) == (39, 2, 1)
    report = a_report(verdict)
    assert report.exit_status == 0
    assert report.changes_per_second == 19.5
    assert report.failovers == [0.5]


def test_a_transfer_of_unknown_fate_may_be_there_if_all_agree() -> None:
    assert not check(FATES, [a_book(extra=("w0.1.2",))] * 3, SEED).fault_found


def test_a_loss_on_one_member_is_found() -> None:
    verdict = check(FATES, [a_book(), a_book(without="w0.0.9"), a_book()], SEED)
    assert verdict.lost == ("w0.0.9",)
    assert not verdict.members_agree
    assert a_report(verdict).exit_status == 1


def test_a_loss_on_all_members_is_found() -> None:
    verdict = check(FATES, [a_book(without="w0.0.9")] * 3, SEED)
    assert verdict.lost == ("w0.0.9",)
    assert verdict.members_agree
    assert verdict.total_kept
    assert a_report(verdict).exit_status == 1


def test_a_double_application_is_found_though_the_total_is_kept() -> None:
    verdict = check(FATES, [a_book(twice="w0.0.3")] * 3, SEED)
    assert verdict.doubled == ("w0.0.3",)
    assert verdict.total_kept
    assert a_report(verdict).exit_status == 1


def test_a_double_application_of_unknown_fate_is_found() -> None:
    book = a_book(extra=("w0.1.1", "w0.1.1"))
    assert book.applied["w0.1.1"] == 2
    assert check(FATES, [book], SEED).doubled == ("w0.1.1",)


def test_a_broken_total_is_found() -> None:
    book = a_book()
    book.balances[3] += 1
    verdict = check(FATES, [a_book(), book], SEED)
    assert not verdict.total_kept
    assert a_report(verdict).exit_status == 1


def test_money_on_the_wrong_account_is_found_though_the_total_is_kept() -> None:
    book = a_book()
    book.balances[3] += 1
    book.balances[4] -= 1
    verdict = check(FATES, [book] * 3, SEED)
    assert verdict.total_kept
    assert not verdict.balances_right
    assert a_report(verdict).exit_status == 1


def test_a_refused_transfer_that_was_applied_is_found() -> None:
    verdict = check(FATES, [a_book(extra=("w0.2.1",))] * 3, SEED)
    assert verdict.wrongly_refused == ("w0.2.1",)
    assert a_report(verdict).exit_status == 1


def test_a_transfer_that_nobody_issued_is_found() -> None:
    verdict = check(FATES, [a_book(extra=("w9.9.9",))] * 3, SEED)
    assert verdict.made_up == ("w9.9.9",)
    assert a_report(verdict).exit_status == 1


def test_members_that_differ_in_what_is_unknown_are_found() -> None:
    verdict = check(FATES, [a_book(), a_book(extra=("w0.1.1",))], SEED)
    assert not verdict.members_agree
    assert a_report(verdict).exit_status == 1


def test_without_a_book_there_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="no book"):
        check(FATES, [], SEED)


def test_a_journal_says_what_was_written_into_it(tmp_path: Path) -> None:
    path = tmp_path / "w0.journal"
    journal = Journal(path)
    journal.record(Fate.ACKNOWLEDGED, "w0.0.1")
    journal.record(Fate.UNKNOWN, "w0.0.2")
    assert list(read_journal(path)) == [
        (Fate.ACKNOWLEDGED, "w0.0.1"),
        (Fate.UNKNOWN, "w0.0.2"),
    ]
    journal.close()


def test_two_records_of_one_transfer_are_an_error() -> None:
    with pytest.raises(JournalError, match=r"w0\.0\.1 is recorded twice"):
        fates_of([(Fate.UNKNOWN, "w0.0.1"), (Fate.ACKNOWLEDGED, "w0.0.1")])


def test_the_bank_counts_each_application_and_moves_the_money_each_time() -> None:
    bank = Bank()
    transfer = transfer_of("w0.0.1", SEED)
    before = bank.book.total
    results = [bank.apply(transfer, Context(index, 0, 0.0, 1)) for index in (1, 2)]
    assert results == [1, 2]
    assert bank.book.balances[transfer.target] - 1_000 == 2 * transfer.amount
    assert bank.book.total == before


def test_a_bank_installs_what_another_has_saved_and_keeps_nothing_of_its_own() -> None:
    bank, other = Bank(), Bank()
    bank.apply(transfer_of("w0.0.1", SEED), Context(1, 0, 0.0, 1))
    other.apply(transfer_of("w0.0.2", SEED), Context(1, 0, 0.0, 1))
    other.install(io.BytesIO(bank.snapshot()))
    assert other.book == bank.book
    assert other.snapshot() == bank.snapshot()


def test_a_copied_book_stays_as_it_is() -> None:
    book = a_book()
    copy = book.copy()
    book.enter(transfer_of("w8.0.1", SEED))
    assert copy == a_book()


def test_every_transfer_moves_something_between_two_accounts() -> None:
    for number in range(500):
        transfer = transfer_of(f"w0.0.{number}", SEED)
        assert transfer.source != transfer.target
        assert transfer.source in range(ACCOUNTS)
        assert transfer.target in range(ACCOUNTS)
        assert 1 <= transfer.amount <= 100
        assert transfer == transfer_of(f"w0.0.{number}", SEED)


def test_the_usual_run_has_at_least_five_faults_of_both_kinds() -> None:
    faults = plan_faults(24.0, SEED)
    assert len(faults) >= 5
    assert {fault.kind for fault in faults} == {FaultKind.KILL, FaultKind.STOP}
    assert faults == plan_faults(24.0, SEED)
    times = [fault.at_seconds for fault in faults]
    assert times == sorted(times)
    assert times[-1] < 24.0


def test_the_shortest_run_has_one_kill() -> None:
    (fault,) = plan_faults(3.0, SEED)
    assert fault.kind is FaultKind.KILL
