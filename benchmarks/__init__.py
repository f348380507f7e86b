"""Benchmarks: one question a file, each answered as a ratio to a peer that ran beside Riverbus in the same run."""
