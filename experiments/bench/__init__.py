"""Benchmarks: what the callback costs, and how true its numbers are."""
