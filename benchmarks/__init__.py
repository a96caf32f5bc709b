"""Measurements of speed and accuracy, run by hand, outside the tests: ``python -m benchmarks.NAME --help``."""
