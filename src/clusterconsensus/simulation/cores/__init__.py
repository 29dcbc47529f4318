"""Bare cores, message by message: what stories, the explorer and the quick fuzzer are told on.

No event loop, no journal, no bytes on a disk: only ``Replica``, with a small world around it in
which nothing happens by itself. Reading order: ``member`` (a core, its disk, its state machine, its
client), ``world`` and ``clients``, ``cluster`` (turns, deliveries, time), ``ghost`` (the
invariants), ``describe`` (in one line each), ``story`` with ``expectations`` (scripts), ``fuzz``
with ``happenings`` (random schedules).
"""
