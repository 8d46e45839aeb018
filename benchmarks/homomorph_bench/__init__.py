"""Benchmarks: each compares things timed in the same run, in turns, and writes `results.json`."""

from homomorph_client.version import __version__ as __version__
