"""Tests of the pure core, without any world around it."""
