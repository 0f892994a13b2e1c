"""Synchronous runs: the updates of a round's participants are combined together."""
