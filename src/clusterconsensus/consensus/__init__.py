"""The protocol: a durable Multi-Paxos with a stable master, as a pure state machine.

Theory of operation
===================

Members agree on a *log*. A member that wants to lead claims a *ballot*; a majority *promises* it to
take nothing below that ballot any more, and shows what it holds. The candidate adopts the best log
among the promises, and from then on only appends to it: it is the *master* of that ballot. An entry
of its own ballot that a majority holds on disk is *chosen*, together with everything before it.
Every member applies what is chosen, in order.

Events go in, effects come out; there is no clock here, no chance, no I/O and no thread. Time and
chance come in with each step. So the same core runs on real machines and in a simulator, and a
recorded sequence of events always gives the same effects.

Reading order
=============

``types``, ``messages``, ``events``, ``effects``: the nouns. ``quorum``: majorities. ``log``: what
is agreed on. ``local``: what one member knows. ``acceptor``: safety; nothing else may weaken it.
``election`` and ``master`` (with ``progress``, ``reads``, ``comparison``): liveness and speed.
``membership``: who belongs. ``sessions``: exactly once. ``replica``: the façade.
"""
