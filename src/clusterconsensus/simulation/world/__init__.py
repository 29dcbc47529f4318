"""What simulated machines are made of, each under the port that production fills otherwise.

``loop`` (virtual time, an event loop for each process) with ``guard`` (nothing leaves the
simulation), ``disk`` with ``content``, ``network``, ``worker``. Nothing here decides what happens.
"""
