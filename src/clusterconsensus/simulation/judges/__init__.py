"""Who judges what members, disks and clients do. They believe nobody.

While a run goes on: ``invariants`` (cores), ``platter`` (what is durable), ``witness`` (state
machines). Afterwards: ``history`` with ``models`` and ``linearizability`` (what clients saw).
"""
