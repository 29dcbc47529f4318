"""A deterministic simulator: whole clusters on virtual time, with every fault at one's command.

The unchanged ``Participant`` runs in it, with its runtime, its journal and its wire format; only
the ports are others: the event loop, the network, the disk, the clock and the source of chance. One
seed is one run, wherever it runs; what happened in it is told by one hash, the *trace*.

For users: ``check_state`` judges a state machine by itself; ``run(draw(seed), workload=...)`` runs
it in a cluster under faults; ``Cluster`` is for tests of one's own that want to say themselves what
happens. The command ``clusterconsensus simulate`` does the first two.

Reading order
=============

*The world*: ``loop`` (virtual time, event loops), ``disk`` with ``content``, ``network``,
``worker``, ``machine``, ``cluster``. *Trouble*: ``plan`` (what a seed does), ``injector`` (does
it), ``clients`` and ``workloads``. *Judges*: ``invariants`` (cores), ``platter`` (what is durable),
``witness`` (state machines), ``history``, ``models`` and ``linearizability`` (clients), ``seeds``
(all of them, for one seed). *Telling*: ``trace``, ``recording``, ``report`` with ``explanations``.

Beside whole clusters: ``cores`` with ``stories`` (bare cores, message by message), ``explorer``
(every order of events of a small cluster), ``journals`` with ``power`` (every crash of a disk),
``states`` with ``sentinels`` (users' state machines), ``mutants`` (deliberate bugs, which prove
that the judges can fail).
"""

from __future__ import annotations

from clusterconsensus.simulation.cluster import Cluster, LivenessError
from clusterconsensus.simulation.disk import Disk, PowerFailure
from clusterconsensus.simulation.guard import RealWorldError
from clusterconsensus.simulation.history import History, Operation
from clusterconsensus.simulation.invariants import BrokenError
from clusterconsensus.simulation.loop import (
    SimulatedLoop,
    StalledError,
    World,
)
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.network import Network, SimulatedTransport
from clusterconsensus.simulation.plan import FAULTS, Action, Fault, Plan, draw
from clusterconsensus.simulation.recording import Recorder, Recording
from clusterconsensus.simulation.report import render
from clusterconsensus.simulation.seeds import Result, Violation, run
from clusterconsensus.simulation.states import Findings, check_state
from clusterconsensus.simulation.workloads import OwnWorkload, Workload

__all__ = [
    "FAULTS",
    "Action",
    "BrokenError",
    "Cluster",
    "Disk",
    "Fault",
    "Findings",
    "GoneError",
    "History",
    "LivenessError",
    "Machine",
    "Network",
    "Operation",
    "OwnWorkload",
    "Plan",
    "PowerFailure",
    "RealWorldError",
    "Recorder",
    "Recording",
    "Result",
    "SimulatedLoop",
    "SimulatedTransport",
    "StalledError",
    "Violation",
    "Workload",
    "World",
    "check_state",
    "draw",
    "render",
    "run",
]
