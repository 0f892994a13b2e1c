"""Asynchronous runs: updates applied as they arrive."""
