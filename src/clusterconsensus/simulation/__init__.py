"""A deterministic simulator: whole clusters on virtual time, with every fault at one's command.

The unchanged ``Participant`` runs in it, with its runtime, its journal and its wire format; only
the ports are others: the event loop, the network, the disk, the clock and the source of chance. One
seed is one run, wherever it runs; what happened in it is told by one hash, the *trace*.

For users: ``check_state`` judges a state machine by itself; ``run(draw(seed), workload=...)`` runs
it in a cluster under faults; ``Cluster`` is for tests of one's own that want to say themselves what
happens. The command ``clusterconsensus simulate`` does the first two.

Reading order
=============

``world`` (virtual time, network, disks), ``judges`` (who believes nobody), ``machine`` and
``cluster`` (participants on top of the one, watched by the other), ``workloads`` and ``clients``
(work), ``trouble`` (what goes wrong, and the plan of it), ``running`` (one seed, many, a failing
one made smaller), ``telling`` (the trace, the recording, the page).

Beside whole clusters: ``cores`` with ``stories`` (bare cores, message by message), ``explorer``
(every order of events of a small cluster), ``journals`` (every crash of a disk), ``states`` (users'
state machines, by themselves), ``mutants`` (deliberate bugs, which prove that the judges can fail).
"""

from __future__ import annotations

from clusterconsensus.simulation.cluster import Cluster, LivenessError
from clusterconsensus.simulation.judges.history import History, Operation
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.running.seeds import Result, Violation, run
from clusterconsensus.simulation.states import Findings, check_state
from clusterconsensus.simulation.telling.recording import Recorder, Recording
from clusterconsensus.simulation.telling.report import render
from clusterconsensus.simulation.trouble.plan import FAULTS, Action, Fault, Plan, draw
from clusterconsensus.simulation.workloads import OwnWorkload, Workload
from clusterconsensus.simulation.world.disk import Disk, PowerFailure
from clusterconsensus.simulation.world.guard import RealWorldError
from clusterconsensus.simulation.world.loop import (
    SimulatedLoop,
    StalledError,
    World,
)
from clusterconsensus.simulation.world.network import Network, SimulatedTransport

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
