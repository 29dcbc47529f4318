"""``Participant``: one member's half of the consensus, as an application uses it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus.changes import MAX_PRIORITY, Change
from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.sessions import Request
from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import (
    ConsensusError,
    DirectoryInUseError,
    DivergedError,
    ElectionError,
    InvalidChangeError,
    NoMasterError,
    NotReadyError,
    OutcomeUnknownError,
    ParticipantClosedError,
    RemovedError,
    SettingsError,
)
from clusterconsensus.runtime import outcomes
from clusterconsensus.runtime.driver import Driver
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.runtime.opening import Opened, open_member
from clusterconsensus.runtime.publishing import EventStream, Publisher
from clusterconsensus.runtime.status import EventHandler, SnapshotTaken, Status
from clusterconsensus.settings import Settings
from clusterconsensus.state import Codec, State
from clusterconsensus.transport.base import Transport

StateT = TypeVar("StateT", bound=State)
AnswerT = TypeVar("AnswerT")

CHANGE_OVERHEAD_BYTES = 5
"""What each change of a batch counts beside its own bytes."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Participant(Generic[StateT]):
    """One member of a cluster that keeps one state machine identical on all of them.

    Nothing starts before ``async with`` (or ``start``). A directory that has belonged to a cluster
    rejoins it by itself; a fresh one waits until ``init_master`` founds a cluster on it, until it
    asks a member of one by ``join``, or until a member of one calls ``add_participant`` for it.

    Every call that changes something ends in one of three ways: a result; an error whose
    ``outcome`` is *not applied* (safe to try again); an error whose ``outcome`` is *unknown*.

    Arguments:
        cluster: The cluster's name, 1 to 64 of ``A-Z a-z 0-9 . _ -``; equal on all members.
        member: This member: its id, and the address at which the others reach it.
        state: The state machine; see ``State``. Given empty: its content comes from the newest
            snapshot and the log behind it.
        directory: Where the journal lives; made if it is missing; held exclusively.
        transport: How members are reached, e.g. ``TcpTransport(address)``.
        settings: Limits and times.
        codec: Encodes changes and results; MessagePack of plain data by default.
        event_handler: Is told of masterships and commits; see ``EventHandler``.
        environment: The machine's ports; for simulators.

    Raises:
        SettingsError: a name or a setting is out of its bounds.
    """

    def __init__(
        self,
        *,
        cluster: str,
        member: Member,
        state: StateT,
        directory: str | PathLike[str],
        transport: Transport,
        settings: Settings | None = None,
        codec: Codec | None = None,
        event_handler: EventHandler | None = None,
        environment: Environment | None = None,
    ) -> None:
        for what, name in (("cluster", cluster), ("member id", member.id)):
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{what} {name!r} is not 1 to 64 letters, digits, '.', '_' or '-'"
                )
        for method in ("apply", "snapshot", "install"):
            if not callable(getattr(state, method, None)):
                raise SettingsError(f"the state {type(state).__name__} has no method {method!r}")
        self._settings = (settings or Settings()).validate()
        if transport.max_message_bytes < self._settings.max_message_bytes:
            raise SettingsError(
                f"the transport carries messages of {transport.max_message_bytes} bytes; "
                f"max_message_bytes is {self._settings.max_message_bytes}: give the transport the "
                "same settings"
            )
        self._cluster = cluster
        self._member = member
        self._state = state
        self._directory = os.fspath(directory)
        self._transport = transport
        self._codec = codec or MsgpackCodec()
        self._publisher = Publisher(
            event_handler or EventHandler(), self._codec.decode_result, self._settings.max_events
        )
        self._environment = environment or Environment()
        self._opened: Opened | None = None
        self._driver: Driver | None = None
        self._started = False
        self._closing: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._error_raised = False

    # -- life

    async def start(self) -> None:
        """Open the directory, replay what is known to be chosen, and begin to take part.

        Raises:
            DirectoryInUseError: another process holds the directory.
            WrongDirectoryError: it belongs to another member or cluster.
            DamagedError: acknowledged data in it is damaged, and nobody else can have it, or
                ``repair`` is switched off.
            TransportError: the address cannot be listened on.
        """
        if self._started or self._closing is not None:
            # Not after a failure either: the state may hold a part of the log already.
            raise ParticipantClosedError("a participant is started once")
        self._started = True
        try:
            opened = await open_member(
                cluster=self._cluster,
                member=self._member,
                state=self._state,
                codec=self._codec,
                directory=self._directory,
                settings=self._settings,
                environment=self._environment,
                transport=self._transport,
            )
        except DirectoryInUseError:
            self._started = False
            raise
        try:
            if self._closing is not None:
                raise ParticipantClosedError("the participant was closed while it started")
            driver = Driver(
                opened.parts,
                self._publisher.publish,
                self._publisher.publish_commit,
                self._on_failed,
            )
            opened.attach(driver)
            self._publisher.collect = opened.parts.applier.collect
            opened.parts.applier.collect(self._publisher.wants_commits)
            await self._transport.attach(self._cluster, self._member, driver)
        except BaseException:
            await opened.aclose()
            raise
        self._ended = asyncio.get_running_loop().create_future()
        self._opened, self._driver = opened, driver
        driver.start()

    async def aclose(self) -> None:
        """Stop in good order: what waits gets an error, the journal is marked clean, the peers see
        the connection end. Safe to repeat, and before ``start``.

        A master hands over first, if another voter could lead: that takes a moment, and at most
        ``election_timeout_seconds`` (see ``hand_over_on_close``).

        **Cancellation** stops the waiting; the closing goes on.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        driver, opened = self._driver, self._opened
        if driver is None or opened is None:
            return
        if self._settings.hand_over_on_close:
            await driver.hand_over()
        driver.stop()
        try:
            try:
                await self._transport.detach(self._cluster)
            finally:
                await opened.aclose(driver)
        finally:
            self._publisher.end()
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        if error is None and self._error is not None and not self._error_raised:
            self._error_raised = True
            raise self._error

    async def wait_closed(self) -> None:
        """Wait until the participant has stopped.

        Raises:
            ConsensusError: trouble stopped it (a poisoned disk, a broken invariant, a divergence).
        """
        if self._ended is None:
            raise ParticipantClosedError("the participant was never started")
        await asyncio.shield(self._ended)
        if self._error is not None:
            self._error_raised = True
            raise self._error

    def _on_failed(self, error: Exception) -> None:
        self._error = error
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    def _running(self) -> Driver:
        driver = self._driver
        if driver is None:
            raise ParticipantClosedError("the participant is not started")
        if driver.error is not None:
            if self._error is not None:
                raise ParticipantClosedError(
                    f"the participant has stopped: {self._error}"
                ) from self._error
            raise ParticipantClosedError("the participant is closed")
        if self._closing is not None:
            raise ParticipantClosedError("the participant is closed")
        return driver

    def _taking_part(self) -> Driver:
        driver = self._running()
        if driver.removed is not None:
            raise RemovedError(str(driver.removed))
        return driver

    def _serving(self) -> Driver:
        driver = self._driver
        if driver is not None and driver.serving and self._closing is None:
            return driver
        driver = self._taking_part()
        if driver.replica.local.quarantined:
            raise DivergedError(
                f"the state of member {self._member.id!r} differs from the majority's; it does not "
                "serve it. Its state machine is not deterministic"
            )
        return driver

    # -- the cluster

    async def init_master(self, snapshot: bytes | None = None) -> None:
        """Found a new cluster of which this member is the only one, and wait until it leads.

        Arguments:
            snapshot: The state to begin with, given to ``State.install`` on every member; None for
                the state as it was made. At most ``max_change_bytes``.

        Raises:
            DirectoryNotEmptyError: the directory belongs to a cluster already.
            InvalidChangeError: the snapshot is too large, or ``State.install`` refuses it.
        """
        driver = self._running()
        opened = self._opened
        if snapshot is not None and len(snapshot) > self._settings.max_change_bytes:
            raise InvalidChangeError(
                f"the snapshot has {len(snapshot)} bytes; max_change_bytes is "
                f"{self._settings.max_change_bytes}"
            )
        if opened is not None:
            await opened.found(driver, snapshot)
        await driver.master_known()

    async def join(
        self,
        address: str,
        *,
        learner: bool = False,
        priority: int = 1,
        timeout: float | None = None,
    ) -> None:
        """Have this member added to a cluster of which one member is reached at ``address``, and
        wait until this member itself sees that it has its seat.

        For a member on a fresh directory; for one that has what it asks for it is harmless, and
        makes a learner a voter. Any member may be asked: it asks its master.

        Arguments:
            address: Where any member of the cluster is reached.
            learner: Whether to be a learner for good, which counts for nothing, instead of a voter.
            priority: As for ``add_participant``.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused, with the reason.
            MembershipPendingError: nobody answered, or it has not caught up, in time: it may still
                become a member.
            RemovedError: it was removed from the cluster.

        **Cancellation** stops the waiting; this member may still be added.
        """
        self._check_priority(priority)
        if not address:
            raise SettingsError("join needs the address of a member of the cluster")
        driver = self._taking_part()
        belongs = bool(driver.parts.gate.cluster_id)
        await driver.joins.join(address, learner, priority, belongs, timeout)

    async def add_participant(
        self,
        member: Member,
        *,
        learner: bool = False,
        priority: int = 1,
        timeout: float | None = None,
    ) -> None:
        """Make a member a voter of this cluster, or a learner, and wait until it is one.

        The member must run on a fresh directory at its address. It first receives the log without
        counting, and is promoted when it has caught up. Callable on any member; adding a member
        again is harmless, and adding one that is a learner promotes it.

        Arguments:
            member: Its id and address.
            learner: Whether it stays a learner: it follows, serves reads and submits, and counts
                for nothing.
            priority: Who should lead; see ``set_priority``.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused, with the reason.
            MembershipPendingError: not caught up in time; it may still become a voter.
            NoMasterError: nobody led in time.
            RemovedError: this member was removed from the cluster.

        **Cancellation** stops the waiting; the member may still be added.
        """
        self._check_priority(priority)
        action = Action.ADD_LEARNER if learner else Action.ADD
        await self._change(Change(action, member, priority), timeout)

    async def remove_participant(
        self, member_id: str, *, force: bool = False, timeout: float | None = None
    ) -> None:
        """Remove a member from the cluster, for good, and wait until that is committed.

        Callable on any member, also on the one to be removed and for a master, which hands over
        first. A removed member is told so and serves nothing any more; with the directory it has it
        never comes back. Removing it again is harmless.

        Arguments:
            member_id: Whom to remove.
            force: Remove it even if too few of the voters that are left are alive to decide
                anything (M9). The removal itself is then decided only when enough of them are back.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused: no such member, the last voter, nobody left to lead, or too
                few living voters left.
            MembershipPendingError: not decided in time; it may still be.
            NoMasterError: nobody led in time.

        **Cancellation** stops the waiting; the member may still be removed.
        """
        await self._change(Change(Action.REMOVE, Member(member_id, ""), force=force), timeout)

    async def replace_participant(
        self, member: Member, *, force: bool = False, timeout: float | None = None
    ) -> None:
        """Have a member that lost its disk take its own place again, and wait until it counts for
        what it counted before.

        The member must run on a fresh directory at its address. In one step the old disk is removed
        for good and the new one becomes a learner; a voter is promoted when it has caught up.
        Repeating it is harmless.

        Arguments:
            member: The id, which the cluster knows, and the address, which may be a new one.
            force: Replace it although the member with the old disk is alive, or although too few
                living voters are left meanwhile (M9).
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused: no such member, the old disk is alive, another member
                answers at the address, or the disk that answers was removed before.
            MembershipPendingError: not achieved in time; the new disk may still become a voter.
            NoMasterError: nobody led in time.

        **Cancellation** stops the waiting; the member may still be replaced.
        """
        await self._change(Change(Action.REPLACE, member, force=force), timeout)

    async def move_participant(
        self, member_id: str, address: str, *, timeout: float | None = None
    ) -> None:
        """Tell the cluster at which address a member is reached from now on, and wait until that is
        committed. Its vote is not touched.

        The member itself is restarted with the new address, before or after this; as long as nobody
        answers there the cluster counts it as not heard.

        Arguments:
            member_id: Whose address changes.
            address: The new one, ``"host:port"`` for TCP.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused: no such member, or somebody else is reached there.
            MembershipPendingError: not decided in time; it may still be.
            NoMasterError: nobody led in time.
        """
        if not address:
            raise SettingsError(f"member {member_id!r} needs an address")
        await self._change(Change(Action.MOVE, Member(member_id, address)), timeout)

    async def promote_participant(self, member_id: str, *, timeout: float | None = None) -> None:
        """Make a learner a voter, as soon as it has caught up, and wait for that.

        Raises:
            MembershipError: refused: no such member.
            MembershipPendingError: not caught up in time (``timeout`` in seconds,
                ``read_timeout_seconds`` by default); it may still become a voter.
            NoMasterError: nobody led in time.
        """
        await self._change(Change(Action.PROMOTE, Member(member_id, "")), timeout)

    async def demote_participant(
        self, member_id: str, *, force: bool = False, timeout: float | None = None
    ) -> None:
        """Take a voter's vote: it stays as a learner. A master hands over first.

        Arguments:
            member_id: Whose vote is taken.
            force: As for ``remove_participant``.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused, for the same reasons as in ``remove_participant``.
            MembershipPendingError: not decided in time; it may still be.
            NoMasterError: nobody led in time.
        """
        await self._change(Change(Action.DEMOTE, Member(member_id, ""), force=force), timeout)

    async def set_priority(
        self, member_id: str, priority: int, *, timeout: float | None = None
    ) -> None:
        """Say how much a member should lead, compared to others.

        A master hands over by itself to a voter with a higher priority that has been up to date for
        a while, though not within the first ten election timeouts of its mastership. With priority
        0 a member never stands for election; should only such members be left, nobody leads.

        Arguments:
            member_id: Whose priority it is.
            priority: From 0; 1 is what a member has without being told.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: refused: no such member, or no voter would be left that stands.
            MembershipPendingError: not decided in time; it may still be.
            NoMasterError: nobody led in time.
        """
        self._check_priority(priority)
        await self._change(Change(Action.PRIORITY, Member(member_id, ""), priority), timeout)

    async def transfer_master(self, to: str | None = None, *, timeout: float | None = None) -> None:
        """Hand the mastership over to another voter, and wait until it leads.

        Callable on any member. Changes that come meanwhile wait for the new master; none fails. A
        voter with a higher priority takes the mastership back after a while.

        Arguments:
            to: Who shall lead; None for the voter with the highest priority of those that are up to
                date.
            timeout: Seconds to wait; ``read_timeout_seconds`` by default.

        Raises:
            MembershipError: it was not handed over, with the reason: no such member, not a voter,
                not heard lately, not up to date, or it did not take over in time. The master leads
                on.
            MembershipPendingError: nothing was decided in time.
            NoMasterError: nobody led in time.

        **Cancellation** stops the waiting; it may still be handed over.
        """
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        driver = self._taking_part()
        before = driver.replica.local.master_ballot
        await self._change(Change(Action.TRANSFER, Member(to or "", "")), timeout)
        if to is not None:
            await self.wait_for_master(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await driver.successor_known(before)
        except TimeoutError:
            raise NoMasterError(f"no other master was heard of within {seconds} s") from None

    async def _change(self, change: Change, timeout: float | None) -> None:
        member_id = change.member.id
        if not _NAME.fullmatch(member_id) and (member_id or change.action is not Action.TRANSFER):
            raise SettingsError(f"member id {member_id!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
        await self._taking_part().memberships.change(change, timeout)

    def _check_priority(self, priority: int) -> None:
        if not 0 <= priority <= MAX_PRIORITY:
            raise SettingsError(f"priority {priority} is not between 0 and {MAX_PRIORITY}")

    @property
    def member(self) -> Member:
        """This member."""
        return self._member

    @property
    def is_master(self) -> bool:
        """Whether this member leads and its first own entry is committed. Another may lead already
        without this one knowing: act on it only by ``submit`` and ``read``, which know."""
        driver = self._driver
        return (
            driver is not None
            and driver.error is None
            and driver.replica.local.role.value == "master"
        )

    @property
    def has_master(self) -> bool:
        """Whether a master is known here."""
        return self.current_master is not None

    @property
    def current_master(self) -> Member | None:
        """Who leads, as far as is known here; None where nobody is known to."""
        driver = self._driver
        return None if driver is None or driver.error is not None else driver.master()

    async def wait_for_master(self, timeout: float | None = None) -> Member:
        """Wait until a master is known and return it.

        Raises:
            NoMasterError: none within ``timeout`` seconds (None: for ever).
        """
        driver = self._taking_part()
        try:
            async with asyncio.timeout(timeout):
                await driver.master_known()
                while (master := driver.master()) is None:  # lost again before this task had a turn
                    await asyncio.sleep(0)
                    await driver.master_known()
        except TimeoutError:
            raise NoMasterError(
                f"member {self._member.id!r} knows no master after {timeout} s"
            ) from None
        return master

    async def start_election(self, timeout: float | None = None) -> None:
        """Stand for election now, and wait until this member leads.

        A cluster with a healthy master does not change it for this: the others refuse.

        Raises:
            ElectionError: a majority refused, or nothing was decided in ``timeout`` seconds
                (``read_timeout_seconds`` by default).
        """
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        driver = self._serving()
        try:
            async with asyncio.timeout(seconds):
                await driver.start_election()
                await driver.master_known()  # until its first own entry is committed (E8)
        except TimeoutError:
            raise ElectionError(f"no election was won or lost in {seconds} s") from None
        if not self.is_master:
            raise ElectionError("the election was won, and the mastership lost again")

    async def ping_master(self, timeout: float | None = None) -> float:
        """Prove by a round trip that a master leads a quorum now; returns how many seconds it took.

        Raises:
            ReadFailedError: it was not proven within ``timeout`` seconds (``read_timeout_seconds``
                by default).
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._taking_part().reads.read(timeout)
        return loop.time() - began

    # -- changes

    async def submit(self, change: Any, *, timeout: float | None = None) -> Any:
        """Have a change applied on every member, exactly once, and return its result.

        Callable on any member. Sent again by itself until an outcome is known or the time is up.

        Arguments:
            change: Anything the codec encodes, up to ``max_change_bytes``.
            timeout: Seconds to try; ``submit_timeout_seconds`` by default.

        Returns:
            What ``State.apply`` returned.

        Raises:
            ApplyError: ``State.apply`` raised; it did so on every member.
            InvalidChangeError: the change cannot be encoded or is too large; nothing was sent.
            NotAppliedError: it was not applied and never will be (nobody led, overloaded, closed,
                this member was removed).
            OutcomeUnknownError: it may have been applied, or may yet be; see ``retry``.

        **Cancellation** stops the waiting; the change may still be applied.
        **Consistency**: when this returns, a majority holds the change durably, and every
        linearizable read that begins later sees it. Changes of concurrent calls are applied in any
        order.
        """
        driver = self._serving()
        data = self._encode(change, "change")
        outcome = await driver.submits.submit(data, len(data), timeout)
        return outcomes.unpack(outcome, self._codec.decode_result)

    async def submit_all(
        self, changes: Sequence[Any], *, timeout: float | None = None
    ) -> list[Any]:
        """Have several changes applied as one atomic batch: all of them, one right after the other,
        or none.

        Arguments:
            changes: Together up to ``max_change_bytes``.
            timeout: As for ``submit``.

        Returns:
            One result for each change, in order; an ``ApplyError`` in the place of a change for
            which ``State.apply`` raised (the others are applied all the same).

        Raises:
            InvalidChangeError, NotAppliedError, OutcomeUnknownError: as for ``submit``, for the
                batch as a whole.

        **Cancellation** and **Consistency** as for ``submit``.
        """
        driver = self._serving()
        if not changes:
            return []
        data = [
            self._encode(change, f"change {place} of the batch")
            for place, change in enumerate(changes)
        ]
        # What tells them apart counts too: many small changes could outgrow a message otherwise.
        size = sum(map(len, data)) + CHANGE_OVERHEAD_BYTES * len(data)
        if size > self._settings.max_change_bytes:
            raise InvalidChangeError(
                f"the batch of {len(data)} changes has {size} bytes encoded; max_change_bytes is "
                f"{self._settings.max_change_bytes}"
            )
        request: Request = [*data]
        outcome = await driver.submits.submit(request, size, timeout)
        return outcomes.unpack_batch(outcome, self._codec.decode_result)

    async def retry(self, error: OutcomeUnknownError, *, timeout: float | None = None) -> Any:
        """Ask again for the outcome of a change, inside its session: it is applied now if it was
        not before, and never twice.

        Arguments:
            error: What ``submit`` or ``submit_all`` raised on this participant.
            timeout: As for ``submit``.

        Returns:
            What the first call would have returned.

        Raises:
            SessionExpiredError: it can no longer be told.
            OutcomeUnknownError: no outcome in time, or this participant has stopped: what was sent
                before may have been applied all the same.
            ApplyError: as for ``submit``.
        """
        if error.request is None:
            raise error
        try:
            driver = self._serving()
        except ConsensusError as stopped:
            # That nothing is sent now says nothing of what was sent before (X4).
            raise OutcomeUnknownError(f"request {error.request}: {stopped}") from stopped
        outcome = await driver.submits.retry(error.request, timeout)
        if outcome[:1] == outcomes.BATCH:
            return outcomes.unpack_batch(outcome, self._codec.decode_result)
        return outcomes.unpack(outcome, self._codec.decode_result)

    def _encode(self, change: Any, what: str) -> bytes:
        try:
            data = self._codec.encode_change(change)
        except Exception as error:
            raise InvalidChangeError(
                f"{what} cannot be encoded: {error}: {_shortened(change)}"
            ) from error
        if len(data) > self._settings.max_change_bytes:
            raise InvalidChangeError(
                f"{what} has {len(data)} bytes encoded; max_change_bytes is "
                f"{self._settings.max_change_bytes}: {_shortened(change)}"
            )
        try:
            self._codec.decode_change(data)
        except Exception as error:
            # In the log it would stop every member for good (R8), so it must not get there.
            raise InvalidChangeError(
                f"{what} can be encoded but not decoded again: {error}: {_shortened(change)}"
            ) from error
        return data

    # -- reads

    @property
    def state(self) -> StateT:
        """This member's copy of the state: local, and possibly behind the others' (K8). Read it,
        never change it; for a current view use ``read``."""
        return self._state

    async def read(
        self,
        query: Callable[[StateT], AnswerT],
        *,
        consistency: Literal["linearizable", "lease", "local"] = "linearizable",
        max_staleness_seconds: float | None = None,
        timeout: float | None = None,
    ) -> AnswerT:
        """Ask this member's copy of the state, once it is proven current.

        Arguments:
            query: Called with the state, in the event loop; must not change it. What it returns
                should not be a live part of the state.
            consistency: ``"linearizable"`` sees every change that was acknowledged anywhere before
                this call; it costs a round trip to a majority, shared by all reads that wait.
                ``"lease"`` sees the same, and relies on ``max_clock_drift`` for it: on a master
                that a majority acknowledged lately it costs nothing, elsewhere a round trip to the
                master. Needs ``lease_reads``.
                ``"local"`` sees what this member has applied, without any proof, or with
                ``max_staleness_seconds``.
            max_staleness_seconds: For ``"local"``: sees at least everything that was acknowledged
                anywhere up to this long before this call. Where that is not known, the master is
                asked first, as for a linearizable read, and then not again for so long.
            timeout: Seconds to try; ``read_timeout_seconds`` by default.

        Returns:
            What ``query`` returned.

        Raises:
            ReadFailedError: not proven current in time.
            NotReadyError: a local read on a member that has heard no master since it started.
            SettingsError: ``consistency`` is none of these, or a lease is asked for without
                ``lease_reads``, or a staleness for what is never stale.
        """
        driver = self._serving()
        if consistency == "local":
            if max_staleness_seconds is not None:
                if driver.staleness_seconds() > max_staleness_seconds:
                    await driver.reads.read(timeout)
                    self._serving()
            elif not driver.heard_master:
                raise NotReadyError(
                    f"member {self._member.id!r} has heard no master since it started"
                )
        elif max_staleness_seconds is not None:
            raise SettingsError(
                f"max_staleness_seconds ({max_staleness_seconds}) is for local reads; a "
                f"{consistency} read is never stale"
            )
        elif consistency == "linearizable":
            await driver.reads.read(timeout)
            self._serving()
        elif consistency == "lease":
            if not self._settings.lease_reads:
                raise SettingsError("a lease read needs the setting lease_reads on every member")
            if driver.holds_lease():
                return query(self._state)
            await driver.reads.read(timeout, lease=True)
            self._serving()
        else:
            raise SettingsError(
                f"consistency is 'linearizable', 'lease' or 'local', not {consistency!r}"
            )
        while driver.installing:
            await driver.keeping.installed()
            self._serving()
        return query(self._state)

    # -- snapshots

    async def snapshot(self) -> SnapshotTaken:
        """Take a snapshot of this member's state now, and wait until it is durable.

        Snapshots are taken by themselves (``snapshot_log_bytes``); this is for backups, and before
        planned work. Changes go on meanwhile.

        Returns:
            What it covers, how large it is, and its file: whole, checked, and complete in itself;
            it may be copied away. It stays until two newer ones exist.

        **Consistency**: it holds what this member has applied. To have in it everything that was
        acknowledged anywhere before, await a linearizable ``read`` first.

        Raises:
            SnapshotError: it cannot be taken or written; the message has the reason.
            DiskFullError: no space.

        **Cancellation** stops the waiting; the snapshot is taken all the same.
        """
        return await self._serving().keeping.take()

    # -- being told

    def events(self, *, commits: bool = False) -> EventStream:
        """What happens from this call on, in order, until the participant stops.

        ::

            async for event in participant.events():
                ...

        A reader that falls more than ``max_events`` behind loses the oldest and is told how many.

        Arguments:
            commits: Whether ``Committed`` is among them, which costs something for each change.
        """
        self._running()
        return self._publisher.open(commits)

    def status(self) -> Status:
        """A snapshot of everything an operator asks first.

        Raises:
            ParticipantClosedError: never started.
        """
        if self._opened is None or self._driver is None:
            raise ParticipantClosedError("the participant is not started")
        return self._opened.status(self._driver)


def _shortened(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return text if len(text) <= 200 else text[:200] + "…"
