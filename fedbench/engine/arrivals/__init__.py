"""Asynchronous runs: each client's update is applied as it arrives."""
