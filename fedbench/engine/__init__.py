"""Rounds and arrivals: what client hosts and the server do, in one process or on a Ray cluster."""
