"""The actors of an experiment on a Ray cluster."""
