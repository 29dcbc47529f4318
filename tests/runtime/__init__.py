"""Unit tests of the runtime: everything between the core and the public face."""
