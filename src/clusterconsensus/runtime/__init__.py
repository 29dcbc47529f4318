"""Drives the core on a real machine, or in a simulator: one inbox, one writer, timers, waiters.

Reading order: ``outcomes`` (what becomes of a change), ``envelope`` (who may speak), ``worker``
(the one thread), ``applier`` (chosen entries into the state), ``submits`` and ``questions`` (the
waiting calls of the application), ``opening`` (from a directory to a running member), ``driver``
(the turn that ties them together).
"""
