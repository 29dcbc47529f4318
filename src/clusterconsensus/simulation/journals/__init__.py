"""Every disk that a power failure may leave of a journal, and every byte of one flipped.

``checks`` runs the real journal through both; ``lives`` are what it goes through, ``model`` is what
it must hold, ``power`` enumerates the disks.
"""
