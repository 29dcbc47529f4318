"""Drives the core on a real machine, or in a simulator: one inbox, one writer, timers, waiters.

Reading order: ``outcomes`` (what becomes of a change), ``envelope`` (who may speak), ``mail`` (what
leaves), ``worker`` (the one thread), ``writing`` (group commit), ``applier`` (chosen entries into
the state), ``submits`` and ``questions`` (the waiting calls of the application), ``opening`` (from
a directory to a running member), ``driver`` (the turn that ties them together), ``status`` (what
operators and applications are told).
"""
