"""An honest benchmark: ``python -m bench`` or ``make bench``.

A number by itself says more about the machine than about the library. So everything here is
measured in one run, on one machine, in rounds that take turns:

1. **limits** (``limits.py``): what this disk, this loopback and this interpreter can do at best. A
   library written in Python cannot beat them; how near it comes is the figure worth knowing.
2. **clusterconsensus** (``ours.py``): three processes, durable writes, real sockets.
3. **PySyncObj** (``theirs.py``): the usual choice of a Python program today, on the same workload
   with the settings that we found best for it. It never syncs its journal to the disk, so what it
   acknowledges can be lost with the power; the comparison flatters it, and the report says so.

Every figure is the least, the median and the greatest of the rounds; a ratio is formed within each
round, so that a machine which slows down for a minute slows down both sides of it.

``processes.py`` starts children and talks to them, ``workload.py`` is the load that both systems
get, ``figures.py`` the arithmetic, ``report.py`` the two outputs: JSON on stdout, a table on
stderr.
"""
