"""Running seeds: one from beginning to end, many of them, and a failing one made smaller.

``seeds`` (one) with ``verdicts`` (what is judged in the end), ``runner`` with ``crew`` (many, over
processes), ``shrinking``.
"""
