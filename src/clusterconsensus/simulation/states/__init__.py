"""The conformance kit for states: finds at home what would go wrong on a cluster (K6).

A state that is not deterministic, or whose snapshot forgets a field, works on one member and tears
a cluster apart. The kit runs the user's own state machine over changes that the user's own function
makes up, and reports what it finds to its author: what was seen, at which change, and what to do::

    findings = check_state("shop.stock:Stock", "shop.stock:any_change")
    print(findings.describe())
    assert findings.ok

- The **factory** is called without arguments and makes an empty ``State``: usually its class. Its
  attribute ``codec``, or that of its module, is the ``Codec`` if the default one will not do.
- The **workload** is called as ``workload(chance)`` with a ``random.Random`` for each change and
  returns the change. It draws from ``chance`` alone, so that a seed names its changes for ever.

What is checked:

- ``sentinels``: no method asks a clock, a random source, the environment, files or the network;
- ``determinism``: fresh processes under different hash seeds, start times and time zones answer
  alike, and so does a second instance in one process;
- ``snapshot`` and ``install``: a snapshot is bytes, or pieces that do not depend on what is applied
  while they are made, and changes nothing; installed into an empty or into a used state it restores
  exactly what it was taken from;
- ``results``: they travel; none is a live part of the state;
- ``raising``: what raises has changed nothing before.

Reading order: ``loading``, ``findings``, ``running`` (applies as the library does), ``answers`` and
``snapshots`` (the checks inside this process), ``processes`` with ``messages`` and ``child``,
``kit``.
"""

from clusterconsensus.simulation.states.findings import Finding, Findings
from clusterconsensus.simulation.states.kit import check_state
from clusterconsensus.simulation.states.loading import (
    LoadedState,
    LoadError,
    Workload,
    load_state,
    load_workload,
)

__all__ = [
    "Finding",
    "Findings",
    "LoadError",
    "LoadedState",
    "Workload",
    "check_state",
    "load_state",
    "load_workload",
]
