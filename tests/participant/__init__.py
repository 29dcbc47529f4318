"""Tests of the public face: whole participants, real TCP, real directories."""
