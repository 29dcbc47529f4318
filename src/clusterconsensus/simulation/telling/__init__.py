"""Telling people what happened: the hash of a run, its recording, the page that draws it.

``trace`` (what is hashed and written down), ``recording`` with ``latest`` (the data), ``report``
with ``page`` and ``explanations`` (one self-contained file).
"""
