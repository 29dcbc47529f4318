"""Tests with real processes, which are killed and stopped."""
