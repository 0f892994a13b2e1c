"""The engine on a Ray cluster: actors, their placement and recovery, and the executors that use them."""
