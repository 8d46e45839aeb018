"""Benchmarks: each compares things timed in the same run, in turns, and writes `results.json`."""
