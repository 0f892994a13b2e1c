"""The engine: server, client hosts and the loops of synchronous and asynchronous runs, inline or on a Ray cluster."""
