"""The explorer: every interleaving of a small cluster of real cores, one state after another.

Where random schedules try what comes to their mind, this leaves nothing out: within its bounds
every order of deliveries, losses, repetitions, syncs, crashes and elections is taken, and after
every move the invariants are checked. What it finds comes with a short way there, as a story::

    found = explore(Bounds(members=3, ballots=2, changes=1))
    if found.violation:
        print(found.violation.rule, found.violation.text)
        print(found.violation.story())

Theory of operation
===================

The cores are those of production, and they are deterministic: what a member does is decided by its
state and the event alone. So each step of one member is computed once, by a real core, and then
looked up wherever it occurs again; the state of the cluster is a handful of numbers. ``moments``
says what is left out (time, above all) and why that is safe to leave out.

Reading order: ``bounds``, ``freezing`` (a core's state as a value), ``moments`` (one member),
``checks`` (the invariants), ``space`` (the cluster), ``search``, ``telling``.

What it does not do: change the membership, read, open sessions, and let time decide anything.
"""

from clusterconsensus.simulation.explorer.bounds import Bounds
from clusterconsensus.simulation.explorer.search import Exploration, Progress, explore
from clusterconsensus.simulation.explorer.telling import Counterexample

__all__ = ["Bounds", "Counterexample", "Exploration", "Progress", "explore"]
