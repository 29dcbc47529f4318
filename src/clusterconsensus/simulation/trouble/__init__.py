"""What the fault injector can do to a cluster, by kind: each fault is one method.

A fault is given a source of chance, does what it does, and says what it did; nothing, if there was
nothing to do it to. ``base`` has what they share. ``processes``, ``disks``, ``links``, ``moments``
(at the worst moment, on purpose) and ``others`` (applications, clocks, members, and what no cluster
survives) are put together by ``injector``.
"""
